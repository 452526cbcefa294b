"""A picture and a sound as a person sends them: encoded files in memory."""

from __future__ import annotations

import io


def png(colour: str = "red", side: int = 20) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


def wav(seconds: float = 0.2) -> bytes:
    import numpy as np
    import soundfile

    file = io.BytesIO()
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(16000 * seconds)) / 16000)
    soundfile.write(file, wave.astype("float32"), 16000, format="WAV")
    return file.getvalue()
