"""The page in a browser that reaches this machine alone: what it makes of what a server says."""

import threading

import pytest
from chromium import asked, chromium, found, texts, visible, wait
from page_server import Answer, lines, page_server, refusal

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\u202e & " + "long" * 60
DAMAGED = "The file is no video, or it is damaged: it breaks off"
SEGMENTS = [
    {"frames": [0, 1], "seconds": [0.0, 0.5], "image": "data:image/jpeg;base64,"},
    {"frames": [30, 31], "seconds": [1.25, 1.5]},
    {"frames": [60, 61], "seconds": [2.0, 2.25]},
]
NAMES = ["archery", "bowling", "打太极"]
SCORES = [0.75, 0.2, 0.05]
SHARES = [[2.0, -1.0, 0.5], [0.25, 0.25, 0.25], [-3.0, 0.0, 1.0]]


def result(names=NAMES):
    """A classification of three classes, as the API has it."""
    classes = [{"id": i, "name": name, "score": score} for i, (name, score) in enumerate(zip(names, SCORES))]
    shares = [
        {**row, "shares": values, "rest": 0.5, "logit": sum(values) + 0.5} for row, values in zip(classes, SHARES)
    ]
    video = {"seconds": 3.0, "frames": 90, "width": 340, "height": 256, "decoder": "PyAV"}
    return {
        "result": {"categories": classes, "video": video, "segments": SEGMENTS, "shares": shares, "notes": ["a note"]}
    }


def timeline(names=NAMES):
    """Four windows of a second; the second class has the last two."""
    best = [[0, 1], [0, 1], [1, 0], [1, 0]]
    windows = [
        {
            "start": i * 0.5,
            "end": i * 0.5 + 1,
            "categories": [{"id": c, "name": names[c], "score": s} for c, s in zip(row, (0.9, 0.1))],
        }
        for i, row in enumerate(best)
    ]
    events = [
        {"start": 0.0, "end": 1.25, "id": 0, "name": names[0], "score": 0.9},
        {"start": 1.25, "end": 2.5, "id": 1, "name": names[1], "score": 0.9},
    ]
    return {"result": {"windows": windows, "events": events, "notes": []}}


@pytest.fixture(scope="module")
def driver():
    with chromium("127.0.0.1") as browser:
        yield browser


@pytest.fixture
def browser(driver):
    """A browser of a fresh visitor who reads English, on a wide screen."""
    asked(driver)
    set_language(driver, "en-US")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    yield driver
    errors = [entry["message"] for entry in driver.get_log("browser") if entry["source"] != "network"]
    assert errors == []
    driver.get("about:blank")


def set_language(browser, language):
    agent = browser.execute_script("return navigator.userAgent")
    settings = {"userAgent": agent, "acceptLanguage": language}
    browser.execute_cdp_cmd("Emulation.setUserAgentOverride", settings)


def opened(browser, server, *paths, fragment=""):
    """The page, with files chosen."""
    browser.get(server.url + fragment)
    if paths:
        found(browser, "#file")[0].send_keys("\n".join(map(str, paths)))
    return browser


def classified(browser):
    return wait(browser, lambda: texts(browser, "#classes li"))


def second(browser):
    return browser.execute_script("return document.querySelector('video').currentTime")


def press(browser, *keys):
    """Press keys where the focus is."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def tab_to(browser, selector, steps=30):
    """Press Tab until an element that matches has the focus, which is seen; that element."""
    from selenium.webdriver.common.keys import Keys

    for _ in range(steps):
        press(browser, Keys.TAB)
        element = browser.switch_to.active_element
        if browser.execute_script("return arguments[0].matches(arguments[1])", element, selector):
            ring = "const shown = arguments[0].matches('.unseen') ? arguments[0].nextElementSibling : arguments[0];"
            assert browser.execute_script(ring + "return getComputedStyle(shown).outlineStyle", element) == "solid"
            return element
    raise AssertionError(f"Tab never reaches {selector}")


def test_a_video_plays_and_has_bars_frames_and_shares(browser, videos):
    path = videos / "wide_h264.mp4"
    with page_server(lines({"state": "queued"}, result())) as server:
        opened(browser, server, path)
        assert [text.split("\n") for text in classified(browser)] == [
            ["archery", "75.00%"],
            ["bowling", "20.00%"],
            ["打太极", "5.00%"],
        ]
        wait(browser, lambda: second(browser) > 0)
        (upload,) = server.bodies
        assert upload == ("/api/classify?topk=5&frames=true&shares=true", path.read_bytes())
        assert texts(browser, "#segments data") == ["+2.000", "−1.000", "+0.500"]
        assert [bool(found(element, ".against")) for element in found(browser, "#segments li")] == [False, True, False]
        assert texts(browser, "#shares-sum")[0].startswith("The shares add up to +1.500; with +0.500")
        assert texts(browser, "#notes li") == ["a note"]
        assert {url.split("?")[0] for url in asked(browser) if not url.startswith(("data:", "blob:"))} == {
            *(server.url + name for name in ("", "api/info", "api/classify", "static/icon.svg", "static/page.css")),
            *(
                f"{server.url}static/{name}.js"
                for name in ("page", "charts", "elements", "player", "progress", "timeline")
            ),
            *(f"{server.url}static/{name}.js" for name in ("upload", "words")),
        }


def test_a_video_of_no_class_is_said_to_be_unknown_above_its_classes(browser, videos):
    unknown = result()
    unknown["result"].update(answer="unknown", is_unknown=True, scaled_probability=0.375, threshold=0.5)
    with page_server(lines(unknown), lines(result())) as server:
        opened(browser, server, videos / "wide_h264.mp4", videos / "tall_h264.mp4")
        assert [text.split("\n")[0] for text in classified(browser)] == NAMES
        assert texts(browser, "#unknown") == ["Unknown: the scaled probability 37.50% is below 50.00%."]
        assert wait(browser, lambda: texts(browser, "#videos .note")[1].startswith("Done: archery"))
        assert texts(browser, "#videos .note")[0] == "Done: unknown"
        found(browser, "#language")[0].click()
        assert texts(browser, "#unknown") == ["未知：缩放后的概率 37.50% 低于阈值 50.00%。"]
        found(browser, "#videos button")[1].click()
        assert wait(browser, lambda: not visible(browser, "#unknown"))


def test_what_a_model_cannot_do_is_not_offered(browser, videos):
    plain = result()
    del plain["result"]["shares"]
    with page_server(lines(plain), has_shares=False, has_timeline=False) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        classified(browser)
        assert server.bodies[0][0] == "/api/classify?topk=5&frames=true&shares=false"
        assert len(visible(browser, "#segments button")) == 3
        assert visible(browser, "#shares-choice, #shares-note, #segments .share, #timeline-section") == []


def test_its_states_are_said_and_it_can_be_cancelled_and_begun_again(browser, videos):
    held = threading.Event()
    answer = lines({"state": "decoding", "seconds": 1, "of": 4}, held, result())
    with page_server(answer, lines(result())) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        wait(browser, lambda: texts(browser, "#classify-progress p") == ["Decoding · 25%"])
        assert found(browser, "#status")[0].get_property("textContent") == "Decoding"
        found(browser, "#classify-progress button")[0].click()
        wait(browser, lambda: texts(browser, "#classify-progress p") == ["Cancelled"])
        held.set()
        assert texts(browser, "#classify-progress button") == ["Try again"]
        assert browser.switch_to.active_element.text == "Try again"
        visible(browser, "#classify-progress button")[0].click()
        assert len(classified(browser)) == 3
        assert visible(browser, "#classify-progress") == []
        assert found(browser, "#status")[0].get_property("textContent") == "Done: archery, 75.00%"


def test_a_full_server_is_asked_again_after_the_time_it_names(browser, videos):
    full = refusal(503, "16 requests are being served", **{"Retry-After": "2"})
    with page_server(full, lines(result())) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        wait(browser, lambda: texts(browser, "#classify-progress p") == ["The server is full. Trying again in 2 s"])
        assert len(classified(browser)) == 3
        assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (refusal(422, "this is no video: <b>text</b>"), "this is no video: <b>text</b>"),
        (lines({"state": "decoding"}, {"error": {"code": "no_video", "message": "it breaks off"}}), DAMAGED),
        (Answer(500, "oops"), "The server answered with status 500."),
        (lines({"state": "decoding"}), "The connection to the server was lost, or the file can no longer be read."),
    ],
)
def test_a_refusal_is_one_plain_line(browser, videos, answer, line):
    with page_server(answer) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        wait(browser, lambda: texts(browser, "#classify-progress p") == [line])
        assert visible(browser, "#classify-progress progress, #segments-section, #timeline-section, #shown b") == []


def test_a_file_beyond_the_limit_is_not_sent(browser, videos):
    limits = {"bytes": 1000, "seconds": 90, "frames": 100, "pixels": 10_000, "request_seconds": 60}
    with page_server(limits=limits) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        wait(browser, lambda: visible(browser, "#classify-progress.problem"))
        assert texts(browser, "#classify-progress p")[0].endswith("and this server takes at most 1 kB.")
        assert texts(browser, "#limits")[0].startswith("Up to 1 kB and 90 sec long.")
        assert server.bodies == []


def test_a_server_that_went_away_is_told_and_asked_again(browser, videos):
    with page_server() as server:
        browser.get(server.url)
        wait(browser, lambda: "6 classes" in texts(browser, "#about")[0])
    found(browser, "#file")[0].send_keys(str(videos / "wide_h264.mp4"))
    wait(browser, lambda: visible(browser, "#classify-progress.problem"))
    assert texts(browser, "#classify-progress p")[0].startswith("The connection to the server was lost")
    with page_server(lines(result()), port=server.server_address[1]):
        visible(browser, "#classify-progress button")[0].click()
        assert len(classified(browser)) == 3


def test_a_token_is_asked_for_until_it_is_right_and_then_kept(browser, videos):
    from selenium.webdriver.common.keys import Keys

    with page_server(*[lines(result())] * 3, token="right") as server:
        opened(browser, server, videos / "wide_h264.mp4")
        for word in ("wrong", "right"):
            wait(browser, lambda: visible(browser, "#token"))
            assert texts(browser, "#classify-progress p") == ["Waits for the token"]
            assert texts(browser, "#problem") == ([] if word == "wrong" else ["The server does not know this token."])
            press(browser, word, Keys.ENTER)
            wait(browser, lambda: not visible(browser, "#token-form") or visible(browser, "#problem"))
        classified(browser)
        assert visible(browser, "#token-form, #problem") == []
        opened(browser, server, videos / "wide_h264.mp4")  # once more: it is kept for this window
        classified(browser)
        server.token = "new"  # the server was started again
        found(browser, "#file")[0].send_keys(str(videos / "tall_h264.mp4"))
        wait(browser, lambda: visible(browser, "#token-form"))
        assert texts(browser, "#classify-progress p") == ["Waits for the token"]
        browser.get(f"{server.url}#token=new")  # the link that it printed: the page stays
        assert len(classified(browser)) == 3
        assert visible(browser, "#token-form, #problem") == []


def test_a_link_with_a_token_opens_the_page_and_leaves_the_address(browser, videos):
    with page_server(lines(result()), token="t0-_x") as server:
        opened(browser, server, videos / "wide_h264.mp4", fragment="#token=t0-_x")
        classified(browser)
        assert browser.current_url == server.url
        assert [url for url in asked(browser) if "t0-_x" in url and "#" not in url] == []


def test_hostile_names_stay_text(browser, videos, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>\u202e.mp4"
    path.write_bytes((videos / "three_frames.mp4").read_bytes())
    names = [HOSTILE, *NAMES[1:]]
    with page_server(lines(result(names)), lines(timeline(names)), model="<b>model</b>") as server:
        opened(browser, server, path)
        classified(browser)
        assert found(browser, "#classes bdi")[0].text == HOSTILE
        assert found(browser, "#name")[0].text == path.name
        assert found(browser, "#shares-class option")[0].get_property("textContent") == HOSTILE
        found(browser, "#timeline-start")[0].click()
        wait(browser, lambda: visible(browser, ".tracks"))
        assert HOSTILE in texts(browser, "#timeline .name")
        assert HOSTILE in texts(browser, "#timeline td bdi")
        assert found(browser, "main b, main script, img[src=x]") == []
        assert texts(browser, "#about")[0].startswith("<b>model</b>")


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_a_phone_needs_no_sideways_scrolling(browser, videos, language):
    set_language(browser, language)
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    width = "return document.documentElement.scrollWidth"
    names = [HOSTILE, *NAMES[1:]]
    with page_server(lines(result(names)), refusal(422, HOSTILE), lines(timeline(names))) as server:
        opened(browser, server, videos / "wide_h264.mp4", videos / "tall_h264.mp4")
        assert browser.execute_script(width) == 390
        classified(browser)
        found(browser, "#timeline-start")[0].click()
        found(browser, "summary")[0].click()
        wait(browser, lambda: visible(browser, ".tracks"))
        found(browser, "#timeline summary")[0].click()
        assert browser.execute_script(width) == 390
        assert browser.execute_script("return document.querySelector('video').getBoundingClientRect().right") <= 390


def test_the_page_speaks_chinese_to_who_reads_it_and_remembers_a_switch(browser, videos):
    set_language(browser, "zh-CN")
    with page_server(lines(result())) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        classified(browser)
        assert texts(browser, "h3") == ["最可能的类别", "网络看到的画面", "时间线"]
        assert texts(browser, "#notes li") == ["服务器的说明（英文）：a note"]
        assert found(browser, "html")[0].get_attribute("lang") == "zh-CN"
        assert found(browser, "#status")[0].get_property("textContent") == "完成：archery，75.00%"
        found(browser, "#language")[0].click()
        assert texts(browser, "h3") == ["Most probable classes", "What the network saw", "Timeline"]
        assert texts(browser, "#segments data") == ["+2.000", "−1.000", "+0.500"]
        browser.refresh()
        assert texts(browser, "#language") == ["中文"]


def test_both_languages_say_everything(browser):
    with page_server() as server:
        browser.get(server.url)
        script = "const done = arguments[0]; import('/static/words.js').then(words => done(Object.entries(words.WORDS)"
        words = dict(browser.execute_async_script(script + ".map(([name, all]) => [name, Object.keys(all)])))"))
        assert words["en"] == words["zh"]


def test_the_whole_page_works_by_keyboard(browser, videos):
    from selenium.webdriver.common.keys import Keys

    with page_server(lines(result()), lines(timeline())) as server:
        browser.get(server.url)
        tab_to(browser, "#language")
        tab_to(browser, "#file").send_keys(str(videos / "wide_h264.mp4"))
        classified(browser)
        tab_to(browser, "#shares-class")
        press(browser, Keys.ARROW_DOWN)
        assert texts(browser, "#segments data") == ["+0.250"] * 3
        for start in (0.0, 1.25):
            tab_to(browser, "#segments button")
            press(browser, Keys.ENTER)
            wait(browser, lambda start=start: second(browser) == pytest.approx(start, abs=0.01))
        tab_to(browser, "#timeline-start")
        tab_to(browser, "#timeline-section summary")
        press(browser, Keys.ENTER)
        field = tab_to(browser, "[name=window]")
        assert field.get_property("value") == "1"
        field.clear()
        field.send_keys("2", Keys.ENTER)
        wait(browser, lambda: visible(browser, ".tracks"))
        assert server.bodies[1][0] == "/api/timeline?window=2&stride=0.5&threshold=0.8&hold=0.5"
        slider = tab_to(browser, "[type=range]")
        press(browser, Keys.END)
        wait(browser, lambda: second(browser) == pytest.approx(2.5, abs=0.01))
        press(browser, Keys.HOME)
        wait(browser, lambda: slider.get_attribute("aria-valuetext") == "0:00.0, archery")
        tab_to(browser, ".time")
        tab_to(browser, ".time")
        press(browser, Keys.ENTER)
        wait(browser, lambda: slider.get_attribute("aria-valuetext") == "0:01.3, bowling")
        assert visible(browser, "#dock")  # the video is above: it is lifted beside the timeline
        tab_to(browser, "#timeline summary")
        press(browser, Keys.SPACE)
        wait(browser, lambda: len(texts(browser, ".scroll tbody tr")) == 4)
        assert texts(browser, ".scroll tbody tr")[2] == "0:01.00 0:02.00 bowling 90.00%, archery 10.00%"


def test_the_marker_and_clicks_go_together_with_the_video(browser, videos):
    from selenium.webdriver import ActionChains

    with page_server(lines(result()), lines(timeline())) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        classified(browser)
        found(browser, "#timeline-start")[0].click()
        track = wait(browser, lambda: visible(browser, ".track"))[1]
        ActionChains(browser).scroll_to_element(track).move_to_element(track).click().perform()  # its middle
        wait(browser, lambda: second(browser) == pytest.approx(1.25, abs=0.02))
        at = "return parseFloat(document.querySelector('.chart').style.getPropertyValue('--at'))"
        wait(browser, lambda: browser.execute_script(at) == pytest.approx(0.5, abs=0.01))
        assert browser.execute_script("return document.querySelectorAll('.track')[1].querySelectorAll('i').length") == 1
        browser.execute_script("document.querySelector('video').play()")
        wait(browser, lambda: browser.execute_script(at) > 0.6)


def test_a_file_that_is_dropped_anywhere_is_taken(browser, videos):
    drop = (
        "const data = new DataTransfer(); data.items.add(new File([new Uint8Array(300)], 'dropped.mp4'));"
        "for (const kind of ['dragenter', 'dragover', 'drop'])"
        "  document.querySelector('footer').dispatchEvent("
        "    new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true }));"
    )
    with page_server(lines(result())) as server:
        browser.get(server.url)
        browser.execute_script(drop)
        assert len(classified(browser)) == 3
        assert texts(browser, "#name") == ["dropped.mp4"]
        assert server.bodies[0][1] == bytes(300)
        assert visible(browser, ".dropping") == []


def test_nothing_moves_for_who_wants_no_motion(browser, videos):
    wish = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wish})
    held = threading.Event()
    with page_server(lines({"state": "computing"}, held, result())) as server:
        opened(browser, server, videos / "wide_h264.mp4")
        bar = wait(browser, lambda: visible(browser, "progress:indeterminate"))[0]
        assert bar.value_of_css_property("animation-name") == "none"
        held.set()
        classified(browser)
        ready = (
            "const video = document.querySelector('video'); return video.readyState >= 2 && [video.paused, video.loop]"
        )
        assert wait(browser, lambda: browser.execute_script(ready)) == [True, False]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_what_the_browser_cannot_play_is_said_and_classified(browser, videos):
    with page_server(lines(result())) as server:
        opened(browser, server, videos / "mpeg4.avi")
        assert len(classified(browser)) == 3
        assert wait(browser, lambda: texts(browser, "#unplayable"))[0].startswith("This browser cannot play the file.")
        assert visible(browser, "video") == []


def test_several_videos_go_one_after_the_other(browser, videos):
    held = threading.Event()
    answers = [lines({"state": "computing"}, held, result()), refusal(422, "no"), lines(result(["c", "d", "e"]))]
    with page_server(*answers) as server:
        opened(browser, server, *(videos / f"{name}_h264.mp4" for name in ("wide", "tall")), videos / "mpeg4.avi")
        wait(browser, lambda: len(server.bodies) == 1)
        wait(browser, lambda: texts(browser, "#videos .note")[0] == "Computing")
        assert texts(browser, "#videos .note")[1:] == ["Waits for the videos before it"] * 2
        held.set()
        done = ["Done: archery, 75.00%", "no", "Done: c, 75.00%"]
        wait(browser, lambda: texts(browser, "#videos .note") == done)
        found(browser, "#videos button")[2].click()
        assert texts(browser, "#name") == ["mpeg4.avi"]
        assert texts(browser, "#classes bdi") == ["c", "d", "e"]
