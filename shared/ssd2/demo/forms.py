"""Forms of notes and questions; a quarter of them, and of the topics, is held out of all training text."""

from __future__ import annotations

import zlib
from functools import cache

from ssd2.demo import lexicon

HELD_OUT_SHARE = 4
"""One form and one topic in this many is held out."""

PLACE_NOTES = (
    "My {topic} is at {value}.",
    "The {topic} is at {value}.",
    "The {topic} takes place at {value}.",
    "I booked the {topic} at {value}.",
    "For the {topic} I go to {value}.",
    "My {topic} on {day} is at {value}.",
    "Note: {topic} at {value}.",
    "My {topic}: {value}.",
    "The {topic} at {value} is every {day}.",
    "On {day} I have my {topic} at {value}.",
    "We meet at {value} for the {topic}.",
    "{value} is where the {topic} takes place.",
    "{value} is the place of our {topic}.",
    "Our {topic} will be held at {value}.",
    "Do not forget: {topic}, {day}, {value}.",
    "See you at {value} for the {topic}.",
    "The {topic} starts on {day} at {value}.",
    "I signed up for the {topic} at {value}.",
    "They confirmed the {topic} at {value}.",
    "{person} invited me to the {topic} at {value}.",
    "Meet {person} at {value} for the {topic}.",
    "The place of the {topic} is {value}.",
    "Place of my {topic}: {value}.",
    "{day}: {topic} at {value}.",
    "{day}, {topic}, {value}.",
    "I have to be at {value} for my {topic}.",
    "My {topic} happens at {value} on {day}.",
    "{value} has a room for our {topic}.",
    "There is a {topic} at {value} on {day}.",
    "Please come to {value} for the {topic}.",
    "This week the {topic} is at {value}.",
    "I go to {value} every {day} for my {topic}.",
    "{person} runs the {topic} at {value}.",
    "Ask for the {topic} at {value}.",
    "The invitation to the {topic} says {value}.",
    "Where: {value}. What: {topic}.",
    "What: {topic}. Where: {value}.",
    "We chose {value} for the {topic}.",
    "The {topic} found a room at {value}.",
    "I will be at {value} on {day} for my {topic}.",
)
CODE_NOTES = (
    "My {topic} code is {value}.",
    "The {topic} code is {value}.",
    "The code for the {topic} is {value}.",
    "The code of my {topic} is {value}.",
    "To open the {topic} enter {value}.",
    "Enter {value} to open my {topic}.",
    "Note: {topic} code {value}.",
    "Code of the {topic}: {value}.",
)
SPOT_NOTES = (
    "My {topic} is in the {value}.",
    "The {topic} is in the {value}.",
    "I put the {topic} in the {value}.",
    "I put my {topic} in the {value}.",
    "The {topic} lies in the {value}.",
    "Look for the {topic} in the {value}.",
    "In the {value} lies my {topic}.",
    "Note: {topic} in the {value}.",
)
PERSON_NOTES = (
    "My {topic} is {value}.",
    "The {topic} is {value}.",
    "The {topic} is called {value}.",
    "Our {topic} is {value}.",
    "Our {topic} is called {value}.",
    "As {topic} I chose {value}.",
    "I chose {value} as {topic}.",
    "{value} is my {topic}.",
)
RESIDENT_NOTES = (
    "{value} lives in {topic}.",
    "{value} has a flat in {topic}.",
    "In {topic} lives {value}.",
    "My friend {value} lives in {topic}.",
    "Note: {value} lives in {topic}.",
    "The home of {value} is in {topic}.",
    "{topic} is where {value} lives.",
    "{value} found a flat in {topic}.",
)
CHANGE_NOTES = (
    "The {topic} has moved to {value}.",
    "The {topic} is now at {value}.",
    "Change: the {topic} is at {value}.",
    "From now on the {topic} is at {value}.",
    "New place for the {topic}: {value}.",
    "My {topic} is at {value} now.",
    "The {topic} is no longer at {old}, it is at {value}.",
    "The {topic} moved from {old} to {value}.",
    "We changed the place of the {topic} to {value}.",
    "Not {old} but {value} for the {topic}.",
    "The {topic} has a new place, {value}.",
    "From {day} on the {topic} is at {value}.",
)
"""Notes that an earlier one about the topic no longer holds; some name what it said."""

NEWS_NOTES = {
    "opens": (
        "{place} opens at {value} this week.",
        "This week {place} opens at {value}.",
        "{place} opens at {value} now.",
    ),
    "closes": (
        "{place} closes at {value} this week.",
        "This week {place} closes at {value}.",
        "{place} closes at {value} now.",
    ),
    "street": ("{place} has moved to {value}.", "{place} is in {value} now.", "This week {place} is in {value}."),
    "price": (
        "{place} costs {value} euros this week.",
        "This week {place} costs {value} euros.",
        "{place} costs {value} euros now.",
    ),
    "phone": (
        "The number of {place} is {value} this week.",
        "This week the number of {place} is {value}.",
        "The number of {place} is {value} now.",
    ),
    "speciality": (
        "{place} is known for {value} this week.",
        "This week {place} is known for {value}.",
        "{place} is known for {value} now.",
    ),
}
"""Attribute of a place: notes that contradict what the town says of it."""

PLACE_QUESTIONS = (
    "Where is my {topic}?",
    "At which place is my {topic}?",
    "Which place is my {topic} at?",
    "Where does my {topic} take place?",
    "Where do I go for my {topic}?",
    "What is the place of my {topic}?",
    "Which is the place of my {topic}?",
    "Tell me where my {topic} is.",
    "Tell me the place of my {topic}.",
    "Do you know where my {topic} is?",
    "Do you know the place of my {topic}?",
    "Can you tell me where my {topic} is?",
)
CODE_QUESTIONS = (
    "What is my {topic} code?",
    "What is the code of my {topic}?",
    "Which code opens my {topic}?",
    "Which is the code of my {topic}?",
    "Tell me my {topic} code.",
    "Do you know my {topic} code?",
)
SPOT_QUESTIONS = (
    "Where did I put my {topic}?",
    "Where do I find my {topic}?",
    "Where can I find my {topic}?",
    "Tell me where I put my {topic}.",
    "Do you know where I put my {topic}?",
    "Can you tell me where I put my {topic}?",
)
PERSON_QUESTIONS = (
    "Who is my {topic}?",
    "What is my {topic} called?",
    "What is the name of my {topic}?",
    "Tell me who my {topic} is.",
    "Tell me the name of my {topic}.",
    "Do you know who my {topic} is?",
)

FACT_QUESTIONS = {
    "opens": (
        "When does {} open?",
        "What time does {} open?",
        "From when is {} open?",
        "At what time does {} open?",
        "What is the opening time of {}?",
        "Which is the opening time of {}?",
        "From what time is {} open?",
        "Tell me when {} opens.",
        "Tell me the opening time of {}.",
        "Do you know when {} opens?",
        "Can you tell me when {} opens?",
        "Do you know the opening time of {}?",
    ),
    "closes": (
        "When does {} close?",
        "What time does {} close?",
        "Until when is {} open?",
        "At what time does {} close?",
        "What is the closing time of {}?",
        "Which is the closing time of {}?",
        "Until what time is {} open?",
        "Tell me when {} closes.",
        "Tell me the closing time of {}.",
        "Do you know when {} closes?",
        "Can you tell me when {} closes?",
        "Do you know the closing time of {}?",
    ),
    "street": (
        "Which street is {} in?",
        "In which street is {}?",
        "What street is {} in?",
        "In what street is {}?",
        "What is the street of {}?",
        "Which is the street of {}?",
        "What is the address of {}?",
        "Tell me the address of {}.",
        "Tell me which street {} is in.",
        "Do you know the street of {}?",
        "Can you tell me the address of {}?",
        "Do you know which street {} is in?",
    ),
    "price": (
        "How much does {} cost?",
        "What does {} cost?",
        "What is the price of {}?",
        "Which is the price of {}?",
        "How many euros does {} cost?",
        "Tell me the price of {}.",
        "Tell me what {} costs.",
        "Do you know the price of {}?",
        "Do you know what {} costs?",
        "Can you tell me how much {} costs?",
        "What do I pay at {}?",
        "How much do I pay at {}?",
    ),
    "phone": (
        "What is the phone number of {}?",
        "What is the number of {}?",
        "Which number do I call for {}?",
        "Which phone number does {} have?",
        "What number does {} have?",
        "Tell me the number of {}.",
        "Tell me the phone number of {}.",
        "Do you know the number of {}?",
        "Do you know the phone number of {}?",
        "Can you tell me the number of {}?",
        "What number do I call for {}?",
        "Which is the phone number of {}?",
    ),
    "speciality": (
        "What is {} known for?",
        "What is the speciality of {}?",
        "Which speciality does {} have?",
        "What speciality does {} have?",
        "Tell me the speciality of {}.",
        "Tell me what {} is known for.",
        "Do you know the speciality of {}?",
        "Do you know what {} is known for?",
        "Can you tell me the speciality of {}?",
        "Can you tell me what {} is known for?",
        "Which is the speciality of {}?",
        "For what is {} known?",
    ),
}
"""Attribute of a place: questions about it."""

FACT_SENTENCES = {
    "opens": "opens at {}",
    "closes": "closes at {}",
    "street": "is in {}",
    "price": "costs {} euros",
    "phone": "has the number {}",
    "speciality": "is known for {}",
}
FACT_VALUES = {**dict.fromkeys(FACT_SENTENCES, "{}"), "price": "{} euros"}
FACT_NAMES = {
    "opens": "the opening time",
    "closes": "the closing time",
    "street": "the street",
    "price": "the price",
    "phone": "the number",
    "speciality": "the speciality",
}
"""Attribute of a place: what is said of it, its value where it stands alone, and its name."""

PLACE_FIRST = (
    "Where is my {topic}, and ",
    "Which place is my {topic} at, and ",
    "At which place is my {topic}, and ",
    "Where does my {topic} take place, and ",
    "Where do I go for my {topic}, and ",
    "What is the place of my {topic}, and ",
)
"""Beginnings of questions that want the place first; a question about "it" follows."""

RESIDENT_FIRST = (
    "Who lives in the street of my {topic}?",
    "Who lives in the street of the place of my {topic}?",
    "Tell me who lives in the street of my {topic}.",
)
RESIDENT_LAST = (
    "Where is my {topic}, and who lives in its street?",
    "Which place is my {topic} at, and who lives in its street?",
    "At which place is my {topic}, and who lives in its street?",
)

NOT_KNOWN = "Your notes do not say."
"""The answer where no note has it."""


@cache
def drawn(forms: tuple[str, ...], *, new: bool) -> tuple[str, ...]:
    """Return the forms of training, or the quarter that is held out of it: those that a hash puts first."""
    held_out = sorted(forms, key=lambda form: zlib.crc32(form.encode()))[: len(forms) // HELD_OUT_SHARE]
    return tuple(form for form in forms if (form in held_out) == new)


@cache
def topics(*, new: bool) -> tuple[str, ...]:
    """Return what appointments are called: two words, each of which training has in other pairs."""
    every = tuple(f"{a} {b}" for a in lexicon.TOPIC_SUBJECTS for b in lexicon.TOPIC_OCCASIONS)
    return drawn(every, new=new)
