"""Configurations as users of MiniGPT-4 have them: every key of the released files, the values filled in."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]

TEXT = {"train": {"name": "blip_caption"}}
LAUNCH = {"device": "cuda", "world_size": 1, "dist_url": "env://", "distributed": True}
SETS_OF_V2 = {  # name -> (batch_size, sample_ratio)
    "multitask_conversation": (2, 50),
    "llava_conversation": (2, 30),
    "unnatural_instruction": (1, 10),
    "refvg": (6, 40),
    "llava_detail": (4, 20),
    "llava_reason": (4, 80),
    "flickr_grounded_caption": (2, 80),
    "flickr_CaptionToPhrase": (2, 80),
    "flickr_ObjectToPhrase": (2, 80),
    "coco_caption": (6, 10),
    "textcaps_caption": (6, 30),
    "refcoco": (6, 25),
    "refcocop": (6, 25),
    "refcocog": (6, 25),
    "invrefcoco": (6, 10),
    "invrefcocop": (6, 10),
    "invrefcocog": (6, 10),
    "coco_vqa": (6, 15),
    "ok_vqa": (6, 8),
    "aok_vqa": (6, 12),
    "gqa": (6, 50),
    "ocrvqa": (6, 30),
}
BENCHMARKS = ("refcoco", "refcocog", "refcoco+", "gqa", "okvqa", "vizwiz", "iconvqa", "vsr", "hm")


def pictures(name: str, size: int) -> Tree:
    return {"train": {"name": name, "image_size": size}}


def training(name: str, lr: tuple[str, str, str], epochs: int, iters: int, warmup: int) -> Tree:
    """A `run` node; learning rates are written as 1e-4, which PyYAML would call a text."""
    return {
        "task": "image_text_pretrain",
        "lr_sched": "linear_warmup_cosine_lr",
        "init_lr": lr[0],
        "min_lr": lr[1],
        "warmup_lr": lr[2],
        "weight_decay": 0.05,
        "max_epoch": epochs,
        "num_workers": 4,
        "warmup_steps": warmup,
        "iters_per_epoch": iters,
        "seed": 42,
        "output_dir": f"output/{name}",
        "amp": True,
        "resume_ckpt_path": None,
        "evaluate": False,
        "train_splits": ["train"],
        **LAUNCH,
        "wandb_log": True,
        "job_name": name,
    }


def stage1(model_type: str) -> Tree:
    one = {"batch_size": 64, "vis_processor": pictures("blip2_image_train", 224), "text_processor": TEXT}
    return {
        "model": {"arch": "minigpt4", "model_type": model_type},
        "datasets": {"laion": {**one, "sample_ratio": 115}, "cc_sbu": {**one, "sample_ratio": 14}},
        "run": training("minigpt4_stage1_pretrain", ("1e-4", "8e-5", "1e-6"), 4, 5000, 5000),
    }


def stage2(model_type: str, template: str, end: str) -> Tree:
    return {
        "model": {
            "arch": "minigpt4",
            "model_type": model_type,
            "max_txt_len": 160,
            "end_sym": end,
            "prompt_path": "prompts/alignment.txt",
            "prompt_template": template,
            "ckpt": "/weights/stage1/checkpoint_3.pth",
        },
        "datasets": {
            "cc_sbu_align": {
                "batch_size": 12,
                "vis_processor": pictures("blip2_image_train", 224),
                "text_processor": TEXT,
            }
        },
        "run": training("minigpt4_stage2_finetune", ("3e-5", "1e-5", "1e-6"), 5, 200, 200),
    }


def v2_finetune() -> Tree:
    sets = {
        name: {
            "batch_size": size,
            "vis_processor": pictures("blip2_image_train", 448),
            "text_processor": TEXT,
            "sample_ratio": ratio,
        }
        for name, (size, ratio) in SETS_OF_V2.items()
    }
    return {
        "model": {
            "arch": "minigpt_v2",
            "model_type": "pretrain",
            "max_txt_len": 1024,
            "image_size": 448,
            "end_sym": "</s>",
            "llama_model": "/weights/Llama-2-7b-chat-hf",
            "ckpt": "/weights/checkpoint_stage2.pth",
            "use_grad_checkpoint": True,
            "chat_template": True,
            "lora_r": 64,
            "lora_alpha": 16,
        },
        "datasets": sets,
        "run": training("minigptv2_finetune", ("1e-5", "1e-6", "1e-6"), 50, 1000, 1000),
    }


def chat(arch: str, model_type: str, template: str, end: str, size: int) -> Tree:
    """An eval YAML: the data set is there only for its picture processor, and `run` has no runner."""
    v2 = arch == "minigpt_v2"
    return {
        "model": {
            "arch": arch,
            "model_type": model_type,
            "max_txt_len": 500 if v2 else 160,
            "end_sym": end,
            "low_resource": not v2,
            "prompt_template": template,
            "ckpt": "/weights/checkpoint.pth",
            "llama_model": "" if v2 else "/weights/vicuna-7b",
            **({"lora_r": 64, "lora_alpha": 16} if v2 else {}),
        },
        "datasets": {
            "cc_sbu_align": {"vis_processor": pictures("blip2_image_eval", size), "text_processor": TEXT},
        },
        "run": {"task": "image_text_pretrain"},
    }


def benchmarks() -> Tree:
    tree = chat("minigpt_v2", "pretrain", "[INST] {} [/INST]", "</s>", 448)
    tree["evaluation_datasets"] = {
        name: {
            "eval_file_path": "cambridgeltl/vsr_zeroshot" if name == "vsr" else f"/data/{name}",
            "img_path": f"/data/{name}/images",
            "max_new_tokens": 20,
            "batch_size": 100 if name == "hm" else 10,
        }
        for name in BENCHMARKS
    }
    tree["run"] = {**tree["run"], "name": "minigptv2_evaluation", "save_path": "results/v2"}
    return tree


VICUNA, LLAMA = ("###Human: {} ###Assistant: ", "###"), ("[INST] {} [/INST] ", "</s>")
FILES: dict[str, Tree] = {
    "train_configs/minigpt4_stage1_pretrain.yaml": stage1("pretrain_vicuna0"),
    "train_configs/minigpt4_stage2_finetune.yaml": stage2("pretrain_vicuna0", *VICUNA),
    "train_configs/minigpt4_llama2_stage1_pretrain.yaml": stage1("pretrain_llama2"),
    "train_configs/minigpt4_llama2_stage2_finetune.yaml": stage2("pretrain_llama2", *LLAMA),
    "train_configs/minigptv2_finetune.yaml": v2_finetune(),
    "eval_configs/minigpt4_eval.yaml": chat("minigpt4", "pretrain_vicuna0", *VICUNA, 224),
    "eval_configs/minigpt4_llama2_eval.yaml": chat("minigpt4", "pretrain_llama2", *LLAMA, 224),
    "eval_configs/minigptv2_eval.yaml": chat("minigpt_v2", "pretrain", "[INST] {} [/INST]", "</s>", 448),
    "eval_configs/minigptv2_benchmark_evaluation.yaml": benchmarks(),
}
