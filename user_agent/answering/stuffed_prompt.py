"""Notice a prompt that a program has stuffed with passages of documents, before it crosses.

A program that searches documents by itself puts what it finds between instructions and the question, into the one text
that both models read. Four signs tell such a text from one that a person types; none of them is looked up in documents,
so nothing is learned of these.
"""

from __future__ import annotations

import re

FEWEST_WORDS = 30
"""A shorter text has no room for passages beside instructions and a question."""

QUOTED_WORDS = 12
"""As many words in a row that also stand in the private text were not typed twice."""

_ENOUGH = 3
"""Sum of the weights from which a text counts as stuffed."""

_MATERIAL = (
    r"context\w*|passages?|paragraphs?|excerpts?|extracts?|snippets?|chunks?|documents?|files?|sources?|facts|memories|notes|"
    r"data|"
    r"search results?|web results?|retrieved \w+|knowledge(?: base)?|reference (?:material|texts?)|"
    r"information (?:above|below|provided|given)|provided information|portion of a \w+|"
    r"kontext\w*|ausz[üu]gen?|textstellen|abschnitten?|dokumenten?|quellen|passagen|wissensbasis|"
    r"contexte|extraits?|contexto|fragmentos?|documentos?|pasajes|fuentes|trechos|contesto|documenti|estratti|brani|fonti|"
    r"fragmenten|bronnen|passages"
)
_POINTING = (
    r"following|below|above|provided|given|these|this|retrieved|attached|only|solely|nothing but|folgend\w*|obig\w*|"
    r"ausschlie(?:ß|ss)lich|nur|suivants?|uniquement|siguientes?|seguent[ei]|seguintes?|solo|s[óo]lo|únicamente|"
    r"apenas|alleen|onderstaande"
)
_USING = (
    r"us(?:e|es|ing)|based on|answer\w*|respond\w*|according to|given|with|from|refine\w*|consider|synthesi[sz]e|find|"
    r"anhand|nutze\w*|verwende\w*|beantworte\w*|basierend auf|grundlage|en utilisant|utilise\w*|r[ée]pond\w*|"
    r"à partir|usando|"
    r"utiliza\w*|"
    r"respond[ae]\w*|rispond[aei]\w*|bas[áa]ndote|com base|seg[úu]n|beantwoord"
)
_INSTRUCTS = re.compile(
    rf"\b(?:{_USING})\b[^.!?\n]{{0,80}}?\b(?:{_POINTING})\b[^.!?\n]{{0,40}}?\b(?:{_MATERIAL})\b"
    rf"|\b(?:{_USING})\b[^.!?\n]{{0,60}}?\b(?:{_MATERIAL})\b[^.!?\n]{{0,30}}?\b(?:{_POINTING})\b"
    rf"|\b(?:{_MATERIAL})\b[^.!?\n]{{0,40}}\b(?:is|are|follows?|listed|provided)\b"
    r"[^.!?\n]{0,20}\b(?:below|follow\w*|provided|given|above)\b"
    r"|\buse (?:them|it)\b[^.!?\n]{0,30}\b(?:answer|relevant)\b"
    rf"|\bhere (?:is|are)\b[^.!?\n]{{0,30}}\b(?:{_MATERIAL})\b"
    r"|(?:总结|根据|基于|使用|参考|以下)[^。\n]{0,20}(?:上下文|知识库|资料|文档|片段)",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    rf"^[ \t>#*=%\[<-]*(?:[\w']+ ){{0,2}}?(?:{_MATERIAL}|memory|上下文|知识库|资料|参考)"
    r"(?: (?:from|of)(?: \w+){1,3})?(?: information| recuperado| passages)?(?: is below)?(?: #?\d+)?(?: \([^)\n]*\))?"
    r"[ \t]*(?:[\]:>#*：.%=-]|$)"
    r"|<(?:contexts?|documents?|docs?|sources?|passages?|excerpts?|files?|chunks?|knowledge|search_results?)\b[^>\n]*>"
    r"|^[ \t]*(?:page_label|file_path|page_content|metadata)\b"
    r'|\{"(?:content|text|page_content|title)":'
    r"|```context"
    r"|以下是知识库",
    re.IGNORECASE | re.MULTILINE,
)
_MANY = re.compile(
    r"^[ \t]*\[?(?:(?:doc(?:ument)?|source|passage|excerpt|chunk|snippet|result|context|quelle|auszug) ?#?\d+|"
    r"\d{1,2}\])"
    r"|^[ \t]*sources?: *\S+\.\w{2,5}\b"
    r"|<source\b"
    r"|^[ \t]*[-=_]{5,}[ \t]*$"
    r'|^[ \t]*"""[ \t]*$'
    r"|file_path:",
    re.IGNORECASE | re.MULTILINE,
)
_ASKS = re.compile(
    r"^[ \t>#*=%-]*(?:(?:user|final|original|current) )?"
    r"(?:question|query|input|user|message|frage|pregunta|pergunta|domanda|vraag)"
    r"(?: input| message| query)?[ \t]*(?:[:：%=]|$)"
    r"|<(?:user_)?(?:query|question)>"
    r"|\b(?:answer|respond to)\b[^.\n]{0,40}\b(?:the|this|following)\b[^.\n]{0,20}\b(?:question|query|prompt)\b",
    re.IGNORECASE | re.MULTILINE,
)
_BLOCK = re.compile(
    r"^[ \t>#*=%-]*(?:[\w']+ ){0,4}?(?:context|passages|excerpts|snippets|chunks|documents|knowledge(?: base)?|"
    r"search results)"
    r"(?: information)?[ \t:=#%*]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_ENDS = re.compile(
    r"^(?:\w+ )?(?:answer|antwort|antwoord|r[ée]ponse|respuesta|resposta|risposta)[ \t]*:\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
_FALLS_BACK = re.compile(
    r"\b(?:if|when|where)\b[^.!?\n]{0,60}\b(?:not|n['’]t|cannot|no|nothing)\b"
    r"|\bdo(?: not|n['’]t)\b[^.!?\n]{0,30}\b(?:make up|invent|mention)"
    r"|\bno prior knowledge\b|\bcit(?:e|ations?)\b|\bquote them\b"
    r"|\bsteht\b[^.!?\n]{0,30}\bnicht\b|\bwenn\b[^.!?\n]{0,40}\bnicht\b|\bnummer der quelle\b"
    r"|\bsi\b[^.!?\n]{0,40}\b(?:pas|no)\b|未找到|无关",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+|[\u4e00-\u9fff]")


# See docs/decisions/065-the-private-side-of-rest.md.
def is_stuffed(text: str) -> bool:
    """Tell whether a text looks as if a program had put passages of documents into it.

    It needs material that is labelled as such and instructions, a marked question, several pieces or a fallback beside
    it; or a label of its own line and a block below it; or instructions and a question.
    """
    if len(_WORD.findall(text)) < FEWEST_WORDS:
        return False
    signs = [
        (_INSTRUCTS, 2),
        (_LABELLED, 1),
        (_ASKS, 2),
        (_ENDS, 1),
        (_FALLS_BACK, 1),
    ]
    found = {sign: bool(sign.search(text)) for sign, _ in signs}
    labels = len(_LABELLED.findall(text))
    if (block := _BLOCK.search(text)) and len(_WORD.findall(text, block.end())) >= FEWEST_WORDS - 5:
        return True
    pieces = 2 if len(_MANY.findall(text)) > 1 else int(labels > 1)
    has_material = labels or pieces or (found[_INSTRUCTS] and found[_ASKS])
    return bool(has_material) and pieces + sum(weight for sign, weight in signs if found[sign]) >= _ENOUGH


def quotes(text: str, private: str) -> bool:
    """Tell whether a text repeats `QUOTED_WORDS` words in a row of a private one."""
    said, kept = (_WORD.findall(one.casefold()) for one in (text, private))
    runs = {tuple(kept[at : at + QUOTED_WORDS]) for at in range(len(kept) - QUOTED_WORDS + 1)}
    return any(tuple(said[at : at + QUOTED_WORDS]) in runs for at in range(len(said) - QUOTED_WORDS + 1))
