"""OpenAI's own client talks to the server."""

import asyncio
import threading

import pytest
from api_server import audio, data_url, image, serving, until, user
from small_media import png

openai = pytest.importorskip("openai", reason="the openai client is not installed (extra `test`)")


@pytest.fixture(scope="module")
def api(tiny_model):
    from minigpt4o.common.registry import Part, registry
    from minigpt4o.serve.inference import open_chat

    config = registry.get("runner", "chat").Config(
        vis_processor=Part("processor", "blip2_image_eval", {"image_size": 16}),
        audio_processor=Part("processor", "log_mel", {"n_mels": 8, "seconds": 0.12}),
        max_new_tokens=12,
        min_new_tokens=4,
    )
    with serving(open_chat(tiny_model, config), max_batch=8, max_waiting=40) as server:
        yield server


@pytest.fixture
def client(api):
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def text_of(client, *content, **values) -> str:
    done = client.chat.completions.create(model="tiny", messages=[user(*content)], **values)
    return done.choices[0].message.content


def test_a_question_is_answered_with_counts(client) -> None:
    done = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "what is there?"}])
    assert done.object == "chat.completion"
    assert done.choices[0].message.role == "assistant"
    assert done.choices[0].message.content
    assert done.choices[0].finish_reason in ("stop", "length")
    assert done.usage.prompt_tokens > 3
    assert 4 <= done.usage.completion_tokens <= 12
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    assert done.system_fingerprint.startswith("fp_")


def test_the_answer_is_that_of_the_chat(client, make_session, picture) -> None:
    session = make_session()
    assert text_of(client, image(data_url()), "what is there?") == "".join(session.ask("what is there?", [picture]))


def test_pictures_and_sounds_count_as_places_of_the_prompt_and_change_the_answer(client) -> None:
    def ask(*content):
        return client.chat.completions.create(model="tiny", messages=[user(*content)])

    red, blue = ask(image(data_url()), "what?"), ask(image(data_url(png("blue"))), "what?")
    heard, plain = ask(audio(), "what?"), ask("what?")
    slots = red.usage.prompt_tokens_details.media_tokens
    assert slots > 0
    assert red.usage.prompt_tokens > plain.usage.prompt_tokens + slots - 1
    assert len({d.choices[0].message.content for d in (red, blue, heard, plain)}) == 4
    assert heard.usage.prompt_tokens_details.media_tokens > 0


def test_several_pictures_and_a_sound_in_one_message_and_the_order_of_pictures_counts(client) -> None:
    red, blue = image(data_url()), image(data_url(png("blue")))
    one = text_of(client, red, blue, audio(), "which?")
    other = text_of(client, blue, red, audio(), "which?")
    assert one != other


def test_media_before_or_behind_the_words_are_the_same_and_between_words_stay_there(client) -> None:
    picture = image(data_url())
    assert text_of(client, picture, "what is there?") == text_of(client, "what is there?", picture)
    assert text_of(client, "what is", picture, "there?") != text_of(client, picture, "what is", "there?")


def test_a_stream_says_the_same_as_the_whole_answer(client) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=[user(image(data_url()), "what is there?")],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    whole = text_of(client, image(data_url()), "what is there?")
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces).strip() == whole
    assert sum(map(bool, pieces)) > 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] in ("stop", "length")
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens >= 4
    assert len({c.id for c in chunks}) == 1


def test_a_stream_without_counts_has_none(client) -> None:
    chunks = list(client.chat.completions.create(model="tiny", messages=[user("hello")], stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason


def test_what_was_said_before_is_part_of_the_prompt(client, make_session, picture) -> None:
    session = make_session()
    first = "".join(session.ask("what is there?", [picture]))
    second = "".join(session.ask("where is it?"))
    messages = [
        user(image(data_url()), "what is there?"),
        {"role": "assistant", "content": first},
        {"role": "user", "content": "where is it?"},
    ]
    done = client.chat.completions.create(model="tiny", messages=messages)
    assert done.choices[0].message.content == second
    alone = text_of(client, "where is it?")
    assert alone != second


def test_a_conversation_with_a_key_is_not_read_again_from_its_beginning(client) -> None:
    key = {"prompt_cache_key": "room 7"}
    messages = [user("a small red circle is at the top left. what is there?")]
    first = client.chat.completions.create(model="tiny", messages=messages, extra_body=key)
    messages += [{"role": "assistant", "content": first.choices[0].message.content}, user("where?")]
    again = client.chat.completions.create(model="tiny", messages=messages, extra_body=key)
    fresh = client.chat.completions.create(model="tiny", messages=messages)
    assert again.usage.prompt_tokens_details.cached_tokens > 10
    assert fresh.usage.prompt_tokens_details.cached_tokens == 0
    assert again.choices[0].message.content == fresh.choices[0].message.content


def test_system_words_are_read(client) -> None:
    asked = {"role": "user", "content": "what?"}
    said = {
        role: client.chat.completions.create(
            model="tiny", messages=[{"role": role, "content": "at the top left"}, asked]
        )
        for role in ("system", "developer")
    }
    assert said["system"].choices[0].message.content == said["developer"].choices[0].message.content
    assert said["system"].usage.prompt_tokens > 5


def test_length_and_stop_words_end_an_answer(client) -> None:
    short = client.chat.completions.create(model="tiny", messages=[user("tell me")], max_completion_tokens=3)
    assert (short.usage.completion_tokens, short.choices[0].finish_reason) == (3, "length")
    whole = text_of(client, "tell me", max_tokens=40)
    word = next(c for i, c in enumerate(whole) if i > len(whole) // 2 and whole.find(c) == i and c.isprintable())
    cut = text_of(client, "tell me", max_tokens=40, stop=[word])
    assert cut == whole[: whole.find(word)].strip()


def test_an_answer_may_be_asked_to_have_a_least_length(client) -> None:
    done = client.chat.completions.create(
        model="tiny", messages=[user("tell me")], max_tokens=30, extra_body={"min_tokens": 30}
    )
    assert done.usage.completion_tokens == 30


def test_a_seed_makes_a_drawn_answer_the_same_again(client) -> None:
    drawn = [text_of(client, "tell me", temperature=1.5, seed=seed, max_tokens=30) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    free = {text_of(client, "tell me", temperature=1.5, max_tokens=30) for _ in range(3)}
    assert len(free) > 1
    assert text_of(client, "tell me", temperature=0) == text_of(client, "tell me", top_p=0.0)


def test_a_repetition_penalty_is_taken_as_an_extra(client) -> None:
    plain = text_of(client, "tell me", max_tokens=40)
    assert text_of(client, "tell me", max_tokens=40, extra_body={"repetition_penalty": 5.0}) != plain


def test_the_models_are_listed(client) -> None:
    assert [m.id for m in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "minigpt4o"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'") as error:
        client.chat.completions.create(model="gpt-4o", messages=[user("x")])
    assert error.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"n": 2}, "n"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"1": 5}}, "logit_bias"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"extra_body": {"top_k": 40}}, "top_k"),
        ({"extra_body": {"min_p": 0.1}}, "min_p"),
        ({"extra_body": {"min_tokens": 99}, "max_tokens": 9}, "min_tokens"),
        ({"extra_body": {"guided_choice": ["yes", "no"]}}, "guided_choice"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(client, values, param) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="tiny", messages=[user("x")], **values)
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"
    assert f"`{param}`" in error.value.message


def test_what_changes_nothing_is_taken(client) -> None:
    neutral = {"n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logprobs": False, "user": "me", "store": False}
    habits = {"top_k": -1, "min_p": 0.0, "ignore_eos": False, "stop_token_ids": []}  # what vLLM's users send
    extra = {"extra_body": {"no_such_field": [1], "response_format": {"type": "text"}, "tools": [], **habits}}
    assert text_of(client, "what?", **neutral, **extra) == text_of(client, "what?")


def test_32_at_once_each_get_their_own_answer(api) -> None:
    questions = [f"what is {number}? {'a red circle. ' * (number % 5)}" for number in range(32)]

    async def all_of(at_once: bool) -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{api.url}/v1", api_key="x", max_retries=0, timeout=120) as client:

            async def one(number: int) -> str:
                content = [questions[number]]
                if number % 3 == 0:
                    content = [image(data_url(png("red" if number % 2 else "blue"))), *content]
                if number % 2:
                    done = await client.chat.completions.create(model="tiny", messages=[user(*content)])
                    return done.choices[0].message.content
                stream = await client.chat.completions.create(model="tiny", messages=[user(*content)], stream=True)
                return "".join([c.choices[0].delta.content or "" async for c in stream]).strip()

            if at_once:
                return list(await asyncio.gather(*map(one, range(32))))
            return [await one(number) for number in range(32)]

    together, alone = asyncio.run(all_of(True)), asyncio.run(all_of(False))
    assert together == alone
    assert len(set(alone)) >= 30, "the questions should have answers of their own"


def test_a_caller_who_leaves_frees_the_place(api, client) -> None:
    engine = api.service.engine
    before = engine.stats().cancelled
    stream = client.chat.completions.create(model="tiny", messages=[user("a story")], max_tokens=230, stream=True)
    next(iter(stream))
    until(lambda: engine.stats().running == 1)
    stream.close()
    until(lambda: engine.stats().running == 0, 2.0)

    impatient = client.with_options(timeout=0.05)
    with pytest.raises(openai.APITimeoutError):
        impatient.chat.completions.create(model="tiny", messages=[user("a story")], max_tokens=230)
    until(lambda: engine.stats().running + engine.stats().waiting == 0, 2.0)
    assert engine.stats().cancelled + engine.stats().answered >= before + 2
    assert engine.stats().cancelled > before
    assert text_of(client, "still there?")


def test_many_who_leave_while_they_wait_leave_nothing_behind(api, client) -> None:
    streams = []
    lock = threading.Lock()

    def begin() -> None:
        stream = client.chat.completions.create(model="tiny", messages=[user("a story")], max_tokens=230, stream=True)
        with lock:
            streams.append(stream)

    threads = [threading.Thread(target=begin) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for stream in streams:
        stream.close()
    stats = api.service.engine.stats
    until(lambda: stats().running + stats().waiting == 0, 3.0)
    assert text_of(client, "still there?")
