import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dsrl.llm.structured.parse import AMBIGUOUS_COMMANDS, LATEX_COMMANDS, parse_object


class Sample(BaseModel):
    input: str
    output: str


COMMANDS = re.findall(
    r"\w+",
    """
    alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi pi rho sigma tau
    upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega frac dfrac tfrac
    cfrac binom dbinom tbinom sqrt root sum prod int iint iiint oint lim limsup liminf sup inf max min arg det dim
    ker hom deg gcd exp log ln lg sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth times div cdot pm
    mp ast star circ bullet oplus otimes ominus odot cap cup setminus wedge vee neg lnot land lor forall exists
    nexists in notin ni subset supset subseteq supseteq nsubseteq nsupseteq emptyset varnothing leq geq neq ne nleq
    ngeq nless ngtr ll gg equiv approx cong ncong sim nsim simeq propto mid nmid parallel nparallel perp prec succ
    nprec nsucc npreceq nsucceq to gets mapsto rightarrow leftarrow Rightarrow Leftarrow leftrightarrow
    Leftrightarrow nrightarrow nleftarrow nRightarrow nLeftarrow longrightarrow uparrow downarrow nearrow nwarrow
    searrow swarrow rightleftharpoons rightharpoonup rightsquigarrow hookrightarrow twoheadrightarrow infty nabla
    partial hbar ell Re Im aleph angle triangle triangleleft triangleright ntriangleleft therefore because ldots
    cdots vdots ddots dots quad qquad left right big Big bigg Bigg middle langle rangle lceil rceil lfloor rfloor
    lbrace rbrace lvert rvert lVert rVert overline underline overbrace underbrace widehat widetilde hat tilde bar
    vec dot ddot acute grave breve check mathring text textbf textit textrm textsf texttt textsc textup textnormal
    textstyle textcolor mathbb mathbf mathcal mathfrak mathit mathrm mathsf mathtt boldsymbol operatorname
    displaystyle scriptstyle begin end item label ref eqref tag notag nonumber newline newcommand renewcommand
    noindent nolimits limits normalsize tiny small large Large huge boxed fbox phantom hphantom vphantom hspace
    vspace smash stackrel overset underset atop choose substack bmod pmod pod mod not backslash brace brack bot top
    vdash dashv models Vdash nvdash nvDash rm bf it sf tt rule raisebox rtimes ltimes risingdotseq thickapprox
    thicksim thinspace rmoustache rgroup natural flat sharp clubsuit spadesuit dagger ddagger degree pounds euro
    copyright section paragraph underscore unlhd unrhd uplus upharpoonright ulcorner urcorner textsubscript
    textsuperscript newpage nicefrac
    """,
)
AMBIGUOUS = set(AMBIGUOUS_COMMANDS.split())
CLEAR = [name for name in COMMANDS if name not in AMBIGUOUS]
WORDS = st.sampled_from(["x", "12", "of a", "= 3,", "{2}", "(y)", "and", "$", "&"])


def test_the_list_is_long_and_holds_all_that_is_doubtful() -> None:
    assert len(set(COMMANDS)) >= 300
    assert set(COMMANDS) >= AMBIGUOUS
    assert not AMBIGUOUS & set(LATEX_COMMANDS.split())


def single(text: str) -> str:
    """JSON as it is written by a model that knows LaTeX better than JSON."""
    quoted = text.replace('"', '\\"').replace("\n", "\\n")
    return f'{{"input": "{quoted}", "output": "4"}}'


def escaped(text: str) -> str:
    return json.dumps({"input": text, "output": "4"})


def lost(names: list[str], pattern: str) -> list[str]:
    """Commands that don't come back from either way of writing them."""
    texts = {name: pattern.replace("NAME", name) for name in names}
    ways = (single, escaped)
    return [name for name, text in texts.items() if any(parse_object(way(text), Sample).input != text for way in ways)]


def test_every_command_survives_beside_another() -> None:
    assert lost(COMMANDS, "\\alpha so \\NAME{a}\n\\NAME 2") == []


def test_a_clear_command_survives_alone() -> None:
    assert lost(CLEAR, "1.\\NAME 2") == []


@pytest.mark.parametrize("name", sorted(AMBIGUOUS))
def test_a_doubtful_one_alone_is_told_by_what_stands_before(name: str) -> None:
    assert parse_object(single(f"$\\{name} x$"), Sample).input == f"$\\{name} x$"
    control = {"n": "\n", "t": "\t"}[name[0]]
    assert parse_object(single(f"end.\\{name} x"), Sample).input == f"end.{control}{name[1:]} x"


@given(st.lists(st.tuples(st.sampled_from(CLEAR), WORDS), min_size=1, max_size=8))
def test_texts_with_commands_survive_either_way_of_writing(pieces: list[tuple[str, str]]) -> None:
    text = " ".join(f"{word} \\{name}{{{word}}}" for name, word in pieces)
    assert parse_object(single(text), Sample).input == text
    assert parse_object(escaped(text), Sample).input == text


@given(st.lists(st.tuples(st.sampled_from(COMMANDS), st.text("abcu 3.", max_size=6)), min_size=1, max_size=6))
def test_line_breaks_survive_among_escaped_commands(pieces: list[tuple[str, str]]) -> None:
    text = "".join(f"\\{name} 1\nu{word}\n" for name, word in pieces)
    assert parse_object(escaped(text), Sample).input == text


def test_a_text_without_formulas_keeps_its_line_breaks() -> None:
    for text in ("a = 3 \nu = 4", "Say: \nto be\tor not", "one \ni and two", "end \t to"):
        assert parse_object(escaped(text), Sample).input == text


MATRICES = [
    (r"\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}", r"\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}"),
    (r"\begin{cases}x \\ \hline y\end{cases}", r"\begin{cases}x \\ \hline y\end{cases}"),
    (r"\\frac{1}{2} and \\{a\\}", r"\frac{1}{2} and \{a\}"),
    (r"\\begin{cases}x\\\\y\\end{cases}", r"\begin{cases}x\\y\end{cases}"),
    (r"C:\\new\\table", r"C:\new\table"),
    (r"one\ntwo\tthree", "one\ntwo\tthree"),
    (r"\u00e9 \underline{u} \/ \"", 'é \\underline{u} / "'),
]


@pytest.mark.parametrize(("written", "meant"), MATRICES)
def test_row_breaks_and_escapes(written: str, meant: str) -> None:
    assert parse_object(f'{{"input": "{written}", "output": "4"}}', Sample).input == meant
