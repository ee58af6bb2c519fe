"""The study's page opened from the disk: a whole study by mouse and keyboard, kept over a reload, whose answers count."""

import numpy as np
import pytest

from rmkit.evaluation import study
from rmkit.kit import video
from rmkit.method import sampling

QUESTIONS = list(study.QUESTIONS)


@pytest.fixture
def page_of_study(tiny_profile, tiny_clips):
    """A study of two clips and two methods, so of four comparisons."""
    held = sampling.load(tiny_profile, "validation")
    for number, name in enumerate(("realmaster", "lucy_edit", "editto")):
        for i, clip in enumerate(held):
            frames = np.full((9, 32, 48, 3), 60 * (number + 1) + 5 * i, np.uint8)
            video.write(tiny_profile.layout.enhanced / name / f"{clip.id}.mp4", frames, 16)
    return study.make(tiny_profile)


@pytest.mark.parametrize("width", [1440, 900])
def test_a_whole_study(width, page_of_study, tiny_profile, browser, tmp_path):
    context = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True)
    page, wrong = context.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # Who goes on while a video is still being read lets go of it, which is no failure.
    page.on("requestfailed", lambda asked: asked.failure == "net::ERR_ABORTED" or wrong.append(asked.url))
    page.goto(page_of_study.as_uri() + "#1")
    fits = "document.documentElement.scrollWidth <= window.innerWidth"
    assert "4 comparisons" in page.inner_text("main") and page.evaluate(fits)
    page.keyboard.press("Enter")  # Start has the focus

    # By mouse. Next waits for all three questions.
    assert heading(page) == "Comparison 1 of 4" and page.evaluate(fits)
    page.wait_for_function("[...document.querySelectorAll('video')].every(v => v.currentTime > 0)")
    for question in QUESTIONS:
        assert page.locator("#next").is_disabled()
        page.check(f"input[name={question}][value=a]")
    page.click("#next")

    # By keyboard, as far as the second question; then the page is loaded again.
    assert heading(page) == "Comparison 2 of 4"
    page.keyboard.press("b")
    page.keyboard.press("a")
    page.keyboard.press("Enter")
    page.reload()
    assert heading(page) == "Comparison 2 of 4"
    assert answered(page) == {"realism": "b", "faithfulness": "a"}
    assert page.locator("fieldset.now legend").inner_text() == study.QUESTIONS["quality"]
    page.keyboard.press("b")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("a")  # the first, once more
    assert answered(page) == dict(zip(QUESTIONS, "aab", strict=True))
    page.keyboard.press("Enter")

    # Back once, and another answer.
    assert heading(page) == "Comparison 3 of 4"
    page.keyboard.press("Backspace")
    assert heading(page) == "Comparison 2 of 4" and answered(page)["quality"] == "b"
    page.check("input[name=quality][value=a]")
    page.keyboard.press("Enter")
    for _ in range(2):
        page.keyboard.press("p")
        page.keyboard.type("aaa")
        page.keyboard.press("Enter")

    # The file is saved, then another person takes part, with a session and a number of their own.
    following = page.get_by_role("button", name="Next participant")
    assert heading(page) == "Thank you" and following.is_disabled()
    files = [saved(page, tmp_path)]
    following.click()
    assert heading(page) == "Which video is better?" and page.get_by_role("link").count() == 1
    page.get_by_role("button", name="Start").click()
    for _ in range(4):
        page.keyboard.type("bbb")
        page.keyboard.press("Enter")
    files.append(saved(page, tmp_path))
    context.close()
    assert not wrong

    answers = study.read(tiny_profile, files)
    assert answers.groupby("participant").size().tolist() == [12, 12]
    drawn = study.sessions(list(pairs(tiny_profile)), study.TRIALS, tiny_profile.seed, 2)
    for (_, rows), session, chosen in zip(
        answers.groupby("participant", sort=False), drawn, "ab", strict=True
    ):
        expected = [(*trial[:2], int(trial[2] == chosen)) for trial in session for _ in QUESTIONS]
        assert list(rows[["clip", "against", "ours"]].itertuples(index=False, name=None)) == expected
    assert study.count(tiny_profile, files).data.trials.tolist() == [4] * 6


def pairs(profile):
    return dict.fromkeys((facts["clip"], facts["against"]) for facts in study.answer_key(profile).values())


def heading(page):
    return page.inner_text("h1")


def answered(page):
    chosen = page.eval_on_selector_all("input:checked", "all => all.map(one => [one.name, one.value])")
    return dict(chosen)


def saved(page, folder):
    with page.expect_download() as waiting:
        page.get_by_role("link", name="Save the answers").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path
