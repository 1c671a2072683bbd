"""Unicode forms, markup and spacing that carry no meaning, removed once for every answer kind."""

import re
import unicodedata

DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u207b\u208b\ufe58\ufe63\uff0d"
APOSTROPHES = "\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4`"
QUOTES = "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb"
INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\ufeff"
CHARACTERS = {
    **{ord(sign): "-" for sign in DASHES},
    **{ord(sign): "'" for sign in APOSTROPHES if sign != "`"},
    **{ord(sign): '"' for sign in QUOTES},
    **{ord(sign): None for sign in INVISIBLE},
    **dict.fromkeys(range(0x2066, 0x206A)),
    0x2044: "/",
    0x2215: "/",
    0x2236: ":",
    0x066B: ".",
    0x066C: ",",
    0x2217: "*",
    0x22C5: "\u00b7",
}
SUPERSCRIPT = re.compile("[\u00b2\u00b3\u00b9\u2070-\u207f]+")
VULGAR_FRACTION = re.compile("(\\d?)\\s?([\u00bc-\u00be\u2150-\u215e\u2189])")
SPACED_THOUSANDS = re.compile("(?<![\\d.,])\\d{1,3}(?:[\u00a0\u2007\u2009\u202f]\\d{3})+(?!\\d)")
SURROGATE = re.compile("[\ud800-\udfff]")
DIGIT = re.compile(r"[^\D0-9]")

LATEX_TEXT = re.compile(
    r"\\(?:boxed|fbox|text(?:bf|it|rm|sf|tt|up|normal)?|math(?:rm|bf|sf|it|tt|bb|cal)|mbox|hbox|emph|underline|operatorname\*?)"
    r"\s?{([^{}]*)}"
)
HTML_TAG = re.compile(r"</?(?:b|i|u|em|strong|span|p|br|div|code|mark|font)\b[^<>]{0,200}>", re.IGNORECASE)
MARKDOWN = re.compile(r"\*{1,3}|`{1,2}|(?<!\w)_{1,2}(?=\S)|(?<=\S)_{1,2}(?!\w)|^#{1,6}[ \t]+", re.MULTILINE)
MATH_DELIMITER = re.compile(r"\\[()\[\]]|\$")


def clean(text: str) -> str:
    """Text in one Unicode form: NFKC, ASCII digits, dashes, quotes and fractions, superscripts as `^{...}`.

    Digits grouped by no-break or narrow spaces are joined; lone surrogates, which no file can hold, become U+FFFD.
    """
    if text.isascii():
        return text
    text = SURROGATE.sub("\ufffd", text)
    text = SPACED_THOUSANDS.sub(lambda found: re.sub(r"\D", "", found[0]), text)
    text = SUPERSCRIPT.sub(_superscript, text)  # NFKC would turn x² into x2
    text = VULGAR_FRACTION.sub(_vulgar_fraction, text)
    text = unicodedata.normalize("NFKC", text).translate(CHARACTERS)
    return DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text)


def _superscript(found: re.Match[str]) -> str:
    power = unicodedata.normalize("NFKC", found[0]).translate(CHARACTERS)
    return f"^{power}" if len(power) == 1 else f"^{{{power}}}"


def _vulgar_fraction(found: re.Match[str]) -> str:
    fraction = unicodedata.normalize("NFKC", found[2])
    return f"{found[1]} {fraction}" if found[1] else fraction


def fold(text: str) -> str:
    """`clean`, without case and with single spaces."""
    return " ".join(clean(text).casefold().split())


def unwrap_latex_text(text: str) -> str:
    r"""`\text{...}`, `\mathrm{...}`, `\boxed{...}` and the like replaced by what they hold, also where nested."""
    for _ in range(4):
        if "\\" not in text:
            break
        text = LATEX_TEXT.sub(r"\1", text)
    return text


def strip_markup(text: str) -> str:
    """Text without LaTeX text commands, math delimiters, HTML tags and Markdown."""
    text = MATH_DELIMITER.sub("", unwrap_latex_text(text)).replace("\\ ", " ")
    return MARKDOWN.sub("", HTML_TAG.sub("", text))
