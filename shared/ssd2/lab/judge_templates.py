"""The two templates of the paper's App. G, and parsers of the replies.

    rating      one answer at a time, seven attributes on a scale of 10 (§5.1)
    comparison  two answers side by side, a score from 1 to 10 each (§5.2, Chiang et al. 2023)

A reply without the form that its template asks for is unreadable; nothing is guessed.
"""

from __future__ import annotations

import re

RATING = """\
Rate the response below to an instruction, from the aspects of relevance, factuality, informativeness, conciseness, \
coherence, understandability, and overall human preference, each on a scale of 10 (format: x/10).

======

Instruction: {instruction}

Response: {response}

=======

Please give the ratings now."""
"""Table 6, second template, word for word."""

COMPARISON = """\
[Question]
{instruction}
[The Start of Assistant 1's Answer]
{first}
[The End of Assistant 1's Answer]
[The Start of Assistant 2's Answer]
{second}
[The End of Assistant 2's Answer]

[System]

We would like to request your feedback on the performance of two AI assistants in response to the user question \
displayed above. Please rate the helpfulness, relevance, accuracy, level of details of their responses. Each assistant \
receives an overall score on a scale of 1 to 10, where a higher score indicates better overall performance. Please \
first output a single line containing only two values indicating the scores for Assistant 1 and 2, respectively. The \
two scores are separated by a space. In the subsequent line, please provide a comprehensive explanation of your \
evaluation, avoiding any potential bias and ensuring that the order in which the responses were presented does not \
affect your judgment."""
"""Table 6, first template, word for word."""

TEMPERATURES = {"rating": 0.0, "comparison": 0.2}
"""The paper's temperatures: greedy for ratings, 0.2 for comparisons (caption of table 6)."""

REPORTED = ("relevance", "factuality", "informativeness", "coherence", "understandability")
"""Attributes of the paper's table 1."""
ATTRIBUTES = (*REPORTED, "conciseness", "human preference")
"""Attributes that the template asks for; App. G leaves the last two out of the results."""


def parse_ratings(reply: str) -> dict[str, float] | None:
    """Parse ratings like "Relevance: 9/10", one value per attribute, in any order and emphasis."""
    ratings = {}
    for attribute in ATTRIBUTES:
        found = re.findall(rf"\b{attribute}\W*?(\d+(?:\.\d+)?)[\s*_]*/\s*10(?![\d.]*\d)", reply, re.IGNORECASE)
        values = {float(value) for value in found}
        if len(values) != 1 or not 0 <= (value := values.pop()) <= 10:
            return None
        ratings[attribute] = value
    return ratings


def parse_scores(reply: str) -> tuple[float, float] | None:
    """Parse the two scores of a reply's first line, which must hold nothing else."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.match(rf"\s*{number}(?:,[ \t]*|[ \t]+){number}[ \t]*(?:\n|$)", reply.replace("\r\n", "\n"))
    scores = (float(found[1]), float(found[2])) if found else None
    return scores if scores and all(1 <= score <= 10 for score in scores) else None
