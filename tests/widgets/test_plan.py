"""The plan view in a browser: pictures, prices, dragging, pinning, and the way by keyboard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dataflow.session.again import plan_again
from dataflow.testing import staged
from dataflow.testing.browser import show

pytest.importorskip("anywidget", reason="the extra 'notebook' is not installed")
from dataflow.widgets.plan import PlanView


def made(**asked: Any) -> PlanView:
    known = staged.snapshot()
    participant = staged.participant(known)

    def again(plan: Any, *, pinned: Any) -> Any:
        return plan_again(participant, plan, "anna", pinned)

    session: Any = SimpleNamespace(closed=False, plan_again=again)
    return PlanView(participant.plan(staged.graph(3, known), **asked), session)


def drag(page: Any, label: str, site: str) -> None:
    start = page.locator(f".box.step[data-label='{label}']").bounding_box()
    there = page.locator(f".band[data-site='{site}'] .ground").bounding_box()
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(there["x"] + there["width"] / 2, there["y"] + there["height"] / 2, steps=6)


def test_drag_shows_the_price_and_pin_makes_a_plan(page: Any) -> None:
    view = made()
    show(page, view)
    drag(page, "smooth", "groningen")
    tip = page.locator(".tip-of-drag")
    assert tip.inner_text().startswith("groningen: +")
    page.mouse.up()
    assert tip.count() == 0
    assert "smooth at groningen instead: +" in page.locator(".trial").inner_text()
    assert len(view.plans) == 1, "nothing is decided by looking"
    page.locator("tr.tried .pin").click()
    page.locator(".compare summary", has_text="compared with plan 1").wait_for()
    assert view.plan.assignment_by_key[view.plan.steps[0].key].site == "groningen"
    page.get_by_role("button", name="plan 1").click()
    page.locator("button[aria-pressed=true]", has_text="plan 1").wait_for()
    assert view.plan is view.plans[0]


def test_a_site_that_may_not_says_why(page: Any) -> None:
    show(page, made())
    drag(page, "smooth", "utrecht")
    assert "✗ away: the site does not answer" in page.locator(".tip-of-drag").inner_text()
    page.mouse.up()
    row = page.locator("tr[data-site=utrecht]")
    row.wait_for()
    assert row.locator("button").count() == 0


def test_the_way_by_keyboard(page: Any) -> None:
    view = made()
    show(page, view)
    for _ in range(12):  # past the buttons, to the picture
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('box')"):
            break
    for _ in range(3):
        if page.evaluate("document.activeElement.classList.contains('step')"):
            break
        page.keyboard.press("ArrowRight")
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert "smooth" in label
    page.keyboard.press("Enter")
    page.locator(".why li").first.wait_for()
    assert "would win if" in page.locator(".why").inner_text()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.pin')"):
            break
    page.keyboard.press("Enter")
    page.locator(".compare").wait_for()
    assert len(view.plans) == 2
    page.locator(".panel button.close").focus()
    page.keyboard.press("Escape")
    page.locator(".panel .hint").wait_for()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(page: Any, theme: str) -> None:
    """Text of the view on what is behind it: WCAG AA."""
    show(page, made(), theme=theme)
    page.locator(".box.step").first.click()
    page.locator(".why li").first.wait_for()
    assert page.evaluate(CONTRAST) >= 4.5


#: The least contrast of any text with its background, as the browser has computed them.
CONTRAST = """
() => {
  const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const mix = (colours) => {
    pen.clearRect(0, 0, 1, 1);
    for (const colour of colours) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let least = 21;
  for (const element of document.querySelectorAll(".flow-view *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || element.tagName === "title") continue;
    const style = getComputedStyle(element);
    const grounds = [];
    for (let up = element; up; up = up.parentElement) grounds.unshift(getComputedStyle(up).backgroundColor);
    const face = element.closest(".box")?.querySelector(".face") || element.closest(".band")?.querySelector(".ground");
    if (face) grounds.push(getComputedStyle(face).fill);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(mix([...grounds, ink])), light(mix(grounds))];
    least = Math.min(least, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return least;
}
"""


def test_at_rest_it_is_the_picture() -> None:
    view = made()
    bundle, _ = view._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "text/html"}, "nobody looks: nothing is kept for a page"
    assert view.comm is None
    assert "<svg" in bundle["text/html"]
    assert bundle["text/plain"] == repr(view.plan)


def test_errors_are_answers() -> None:
    view = made()
    step = view.plan.steps[0].key
    answer = view.command({"do": "pin", "step": step, "site": "utrecht", "ask": 7})
    assert answer["ask"] == 7
    assert "does not answer" in answer["error"]
    assert "KeyError" in view.command({"do": "nonsense"})["error"]
    lonely = PlanView(view.plan)
    assert (
        "no open session" in lonely.command({"do": "pin", "step": step, "site": "delft"})["error"]
    )
