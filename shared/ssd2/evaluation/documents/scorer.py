"""Scorer of the benchmark: an answer is right if every required part stands in it, in one of its spellings.

Both sides are normalised to words: case, punctuation, white space, number formats (1,240.00 and 1.240 are 1240), number
words (up to twenty and the tens) and dates (14 March, March 14th, 14.3. and 2026-03-14 are one word). A spelling
YYYY-MM-DD is a date; an answer may leave out its year, and may not name another. A part that is negated right before
it ("not 14 March but …") does not count.
"""

from __future__ import annotations

import re
import unicodedata

from ssd2.evaluation.documents.questions import Question

_MONTHS = (
    ("january", "jan", "januar", "jänner"),
    ("february", "feb", "februar"),
    ("march", "mar", "märz"),
    ("april", "apr"),
    ("may", "mai"),
    ("june", "jun", "juni"),
    ("july", "jul", "juli"),
    ("august", "aug"),
    ("september", "sep", "sept"),
    ("october", "oct", "oktober", "okt"),
    ("november", "nov"),
    ("december", "dec", "dezember", "dez"),
)
_MONTH_OF = {name: number for number, names in enumerate(_MONTHS, start=1) for name in names}
_MONTH = rf"(?P<month>{'|'.join(sorted(_MONTH_OF, key=len, reverse=True))})\b\.?"
_DAY = r"\b(?P<day>\d{1,2})(?:st|nd|rd|th|\.)?"
_YEAR = r"(?:,?\s*(?P<year>\d{4})\b)?"
_DATES = [
    re.compile(pattern)
    for pattern in (
        r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b",
        rf"{_DAY}\s*(?:of\s+)?{_MONTH}{_YEAR}",
        rf"\b{_MONTH}\s*(?:the\s+)?{_DAY}(?![\d:]){_YEAR}",
        r"(?<![\d.])(?P<day>\d{1,2})\.\s?(?P<month>\d{1,2})\.(?:\s?(?P<year>\d{4})\b)?",
        r"\b(?P<day>\d{1,2})/(?P<month>\d{1,2})/(?P<year>\d{4})\b",
    )
]
_ISO_DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)")

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS_WORDS = "twenty thirty forty fifty sixty seventy eighty ninety"
_GERMAN = "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf"
_WORDS = {word: str(number) for number, word in enumerate(_ONES.split())}
_WORDS |= {word: str(number) for number, word in enumerate(_GERMAN.split(), start=2)}
_TENS = {word: 10 * number for number, word in enumerate(_TENS_WORDS.split(), start=2)}
_NUMBER = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:([.,])\d{3})(?:\1\d{3})*(?:[.,]\d{1,2})?")
_TIME = re.compile(r"\b(?P<hour>\d{1,2}):(?P<minute>\d\d)(?!\d)(?:\s?(?P<half>[ap])\.?m\b\.?)?")

_NEGATIONS = r"(?:not|nicht|never|nie|kein|keine|keinen|instead of|rather than|statt|anstatt)"
_FILLERS = r"(?:on|in|at|by|from|the|a|an|am|im|um|ab|bis|dem|den|der|die|das)"
_NEGATED = re.compile(rf"(?:^| ){_NEGATIONS}(?: {_FILLERS})* $")

_SAYING = (
    "mention|mentioned|say|said|state|stated|specify|specified|provide|provided|give|given|know|known|contain|include|"
    "included|indicate|indicated|listed|available|clear|sure|find|answer|determine|determined|tell|disclosed|noted"
)
_SAYING_DE = "bekannt|erwähnt|angegeben|genannt|hervor|enthalten|beantworten|sagen|vermerkt|finden"
_UNKNOWN = re.compile(
    rf"\bnot (?:\w+ ){{0,2}}(?:{_SAYING})\b|\bnot (?:\w+ ){{0,2}}information\b|\bunknown\b|\bunable to\b"
    r"|\bno (?:\w+ )?(?:information|mention|details|data|record|answer)\b|\bnothing (?:\w+ ){0,4}about\b"
    rf"|\bnicht (?:\w+ ){{0,2}}(?:{_SAYING_DE})\b|\b(?:steht|stehen|sagt|weiss|wissen) (?:\w+ ){{0,6}}nicht\b"
    r"|\bkeine (?:\w+ )?(?:angabe|angaben|information|informationen)\b"
    r"|\bunbekannt\b|\bnichts (?:\w+ ){0,4}(?:über|dazu|davon)\b"
)


def is_right(question: Question, answer: str) -> bool:
    """True if an answer says what it has to say, and nothing that is forbidden.

    The answer to a question of the kind "absent" has to say that it is not known.
    """
    words = normalised(answer)
    if any(_holds(words, spelling) for spelling in question.forbidden):
        return False
    if question.kind == "absent":
        return _UNKNOWN.search(words) is not None
    return all(any(_holds(words, spelling) for spelling in part) for part in question.accepted)


def normalised(text: str) -> str:
    """Return a text as lower-case words with single spaces between them, numbers and dates in one form each."""
    text = unicodedata.normalize("NFKC", text).lower().replace("ß", "ss")
    text = re.sub(r"(?:n['’]t\b|(?<=can)not\b)", " not", text)
    text = re.sub(r"\bca not\b", "can not", re.sub(r"['’]s\b|['’]", "", text))
    for pattern in _DATES:
        text = pattern.sub(_as_date, text)
    text = _NUMBER.sub(_as_number, _TIME.sub(_as_time, text))
    words = re.findall(r"\d+h\d\d|\d+p\d+|\d+|[^\W_]+", re.sub(r"\b(\d+)(?:st|nd|rd|th)\b", r"\1", text))
    return " ".join(_as_digits(words))


def _holds(words: str, spelling: str) -> bool:
    """True if a spelling stands in normalised words, as whole words and not negated."""
    date = _ISO_DATE.fullmatch(spelling)
    wanted = rf"date(?:{date[1]})?{date[2]}{date[3]}" if date else re.escape(normalised(spelling))
    found = re.finditer(rf"(?:(?<= )|^){wanted}(?= |$)", words)
    return any(not _NEGATED.search(words[: match.start()]) for match in found)


def _as_date(match: re.Match[str]) -> str:
    month, day = match["month"], int(match["day"])
    number = _MONTH_OF.get(month) or int(month)
    if not (1 <= number <= 12 and 1 <= day <= 31):
        return match[0]
    return f" date{match['year'] or ''}{number:02d}{day:02d} "


def _as_time(match: re.Match[str]) -> str:
    hour = int(match["hour"])
    if match["half"]:
        hour = hour % 12 + (12 if match["half"] == "p" else 0)
    return f" {hour}h{match['minute']} "


def _as_number(match: re.Match[str]) -> str:
    """Write a number with p as the decimal point, without thousands separators and without zeros at its end."""
    number = match[0]
    if _THOUSANDS.fullmatch(number):
        whole, _, fraction = number.replace(",", ".").rpartition(".")
        whole, fraction = (whole, fraction) if len(fraction) < 3 else (whole + fraction, "")
        return _joined(whole.replace(".", ""), fraction)
    parts = re.split(r"[.,]", number)
    return _joined(*parts) if len(parts) == 2 else " ".join(parts)


def _joined(whole: str, fraction: str) -> str:
    fraction = fraction.rstrip("0")
    return f"{whole}p{fraction}" if fraction else whole


def _as_digits(words: list[str]) -> list[str]:
    """Write number words as digits."""
    digits: list[str] = []
    is_after_ten = False
    for word in words:
        number = _WORDS.get(word, word)
        if is_after_ten and word in _WORDS and len(number) == 1 and number != "0":
            digits[-1] = str(int(digits[-1]) + int(number))
        else:
            digits.append(str(_TENS[word]) if word in _TENS else number)
        is_after_ten = word in _TENS
    return digits
