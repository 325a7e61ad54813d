"""Pages as a terminal and as Markdown show them."""

import io
from typing import Literal

import pytest
from rich.cells import cell_len
from rich.console import Console

from hfbench.report.pages import (
    Bullet,
    Bullets,
    Cell,
    Column,
    Folded,
    Heading,
    Kind,
    Page,
    Paragraph,
    Properties,
    Table,
    bullets,
    markdown,
    print_page,
    standard_output,
)

WORD, LATENCY = Column("attention", "word"), Column("end-to-end latency", "number", unit="s")
WAYS = Table.of_rows(
    [WORD, LATENCY],
    [("sdpa", Cell("0.5", "best")), ("eager", "12.25"), ("flex_attention", "3.0")],
    title="Ways",
    footer="Not shown: 2 more.",
)
PAGE: Page = (
    Heading("two words", level=1),
    Paragraph("all with batch 2", "quiet"),
    WAYS,
    Paragraph("* the best", in_markdown="In bold: the best"),
    Bullets((Bullet("few rounds", "unsure", (Bullet("sdpa: one round"),), "Add rounds."),), "Warnings"),
    bullets(["fails now"], "Points", "bad"),
    Properties("Output", (("prompt", "2.5 nats"),)),
    Folded("More", (bullets(["a", "b"]),)),
    bullets(["a note"], role="quiet"),
)
KINDS: tuple[Kind, ...] = ("word", "text", "prose", "line")
EMPTY: Page = (
    bullets([], "List"),
    Properties("Names", ()),
    Table.of_rows([WORD], []),
    Folded("Folded", (bullets([]),)),
)


def _printed(page: Page, width: int = 60, *, color: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, highlight=False, force_terminal=color, color_system="standard" if color else None
    )
    print_page(page, console)
    return "\n".join(line.rstrip() for line in stream.getvalue().split("\n"))


def test_blocks_on_a_terminal_stand_apart_and_paragraphs_follow() -> None:
    assert (
        _printed(PAGE)
        == """\
two words
all with batch 2

Ways
attention       end-to-end latency (s)
──────────────────────────────────────
sdpa                              0.5*
eager                            12.25
flex_attention                     3.0
Not shown: 2 more.
* the best

Warnings
few rounds
  sdpa: one round
  → Add rounds.

Points
  fails now

Output
prompt  2.5 nats

More
a
b

a note
"""
    )


def test_the_same_blocks_in_markdown() -> None:
    assert (
        markdown(PAGE)
        == r"""### two words

all with batch 2

**Ways**

| attention | end-to-end latency (s) |
| :-- | --: |
| sdpa | **0.5** |
| eager | 12.25 |
| flex\_attention | 3.0 |

Not shown: 2 more.

In bold: the best

**Warnings**

- *few rounds*: Add rounds.
  - sdpa: one round

**Points**

- fails now

**Output**

- prompt: 2.5 nats

<details><summary>More</summary>

- a
- b

</details>

- a note
"""
    )


def test_what_is_empty_is_left_out_with_its_title() -> None:
    assert _printed(EMPTY) == ""
    assert markdown((Paragraph("only this"), *EMPTY)) == "only this\n"


def test_sections_are_parted_and_a_dense_head_is_no_wider_than_its_cells() -> None:
    table = Table(WAYS.columns, sections=(1, 1, 2), is_dense=True)
    assert _printed((table,)).splitlines() == [
        "                end-to-end",
        "                   latency",
        "attention              (s)",
        "──────────────────────────",
        "sdpa                  0.5*",
        "eager                12.25",
        "",
        "flex_attention         3.0",
    ]


def test_text_words_and_prose_fold_and_lines_are_cut() -> None:
    text = "a/name/of/more/than/thirty/characters and words"
    shown = {kind: _printed((Table.of_rows([Column("x", kind)], [[text]]),), 20).splitlines()[2:] for kind in KINDS}
    assert shown["word"] == shown["prose"] == ["a/name/of/more/than/", "thirty/characters", "and words"]
    assert shown["text"] == shown["word"]
    assert shown["line"] == ["a/name/of/more/than…"]


def test_roles_are_colours_and_dim_places() -> None:
    table = Table.of_rows([Column("in order")], [[Cell("▁▂▃", quiet_at=(1,))], [Cell("slower", "bad")]])
    text = _printed((Heading("alarm", "alarm"), table), color=True)
    assert "\x1b[1;31malarm" in text
    assert "▁\x1b[0m\x1b[2m▂\x1b[0m▃" in text or "▁\x1b[2m▂\x1b[0m▃" in text
    assert "\x1b[31mslower" in text


def test_a_line_that_wraps_keeps_its_indent_and_one_line_is_cut() -> None:
    long = "word " * 9
    page = (Paragraph(long, indent=4), Paragraph(long, is_one_line=True))
    lines = _printed(page, 20).splitlines()
    assert all(line.startswith("    word") for line in lines[:-1])
    assert cell_len(lines[-1]) <= 20
    assert lines[-1].endswith("…")


@pytest.mark.parametrize("level", [1, 2, 3])
def test_text_of_anybody_acts_on_neither_medium(level: Literal[1, 2, 3]) -> None:
    nasty = "\x1b[31m<b>|*x*[y](z)`_\\ & [bold]n[/bold]"
    page = (Heading(nasty, level=level), Paragraph(nasty), bullets([nasty]), Table.of_rows([Column(nasty)], [[nasty]]))
    assert _printed(page, 200).count("[31m<b>|*x*[y](z)`_\\ & [bold]n[/bold]") == 5
    assert "\x1b" not in _printed(page)
    shown = r"\[31m&lt;b>\|\*x\*\[y\](z)\`\_\\ &amp; \[bold\]n\[/bold\]"
    assert markdown(page).count(shown) == 5


def test_without_a_terminal_the_width_is_fixed(capsys: pytest.CaptureFixture[str]) -> None:
    print_page((Paragraph("word " * 40),), standard_output(50))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 50
