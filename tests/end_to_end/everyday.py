"""Twenty things that people ask a chat model, each with a note that only the user model reads."""

from __future__ import annotations

from dataclasses import dataclass

from user_agent.answering.conversation import NOTHING_SAID, Conversation, Turn


@dataclass(frozen=True)
class Asked:
    """A question.

    Attributes:
        text: of it.
        note: of the user's own.
        conversation: before it.
    """

    text: str
    note: str
    conversation: Conversation = NOTHING_SAID


def _said(question: str, answer: str, crossed: str | None = None) -> Turn:
    return Turn(question, answer, answer if crossed is None else crossed)


_PARIS = _said("What is the capital of France?", "The capital of France is Paris.")
_BREAD = _said("Which flour do I need for bread?", "Strong white flour, because it has more gluten.")
_GARDEN = _said("What grows in the shade?", "Ferns and hostas do.")
_DENTIST = _said("Who is my dentist?", "Your dentist is Dr. Meyer.", "")  # made on the device: the core never saw it

TWENTY = (
    Asked("What is the capital of France?", "Our trip to Paris begins on 3 May."),
    Asked("When is my dentist appointment?", "Dentist: Tuesday 14 March at 9:30, Dr. Meyer."),
    Asked("Write a sentence about the sea.", "We rented a house by the sea in Brittany."),
    Asked("Who leads the budget meeting?", "The budget meeting moved to Friday; Ravi leads it."),
    Asked("Name three fruits.", "Buy apples and pears on Saturday."),
    Asked("Where is the spare key?", "The spare key is under the blue pot."),
    Asked("Explain in one sentence why the sky is blue.", "The kids asked why the sky is blue."),
    Asked("How much was the plumber?", "Plumber: 180 euros, paid on 2 June."),
    Asked("Translate 'good morning' into French.", "French course on Mondays at 18:00."),
    Asked("How many days are there in a week?", "The lease ends on 30 September."),
    Asked("Suggest a name for a grey cat.", "We get the cat on Sunday; her brother is called Smoke."),
    Asked("Is a tomato a fruit or a vegetable?", "Tomatoes: sow in March, plant out in May."),
    Asked("Write a short thank-you note to my neighbour.", "Mrs. Okafor watered the plants in August."),
    Asked("Fix the spelling: I recieved your leter.", "Letter from the bank: answer by Friday."),
    Asked("What does the code 'E4' on my boiler mean?", "Boiler: E4 is low pressure; open the tap below."),
    Asked("Is water wet? Reply with one word.", "Water meter: 4,711 on 1 January."),
    Asked("How do I boil an egg?", "Eggs: six minutes.", Conversation("You are a cook. Answer in one short sentence.")),
    Asked("And of Portugal?", "We fly to Lisbon on 3 May.", Conversation(turns=(_PARIS,))),
    Asked(
        "How long does it rise?",
        "Bread: 500 g flour, rises for two hours.",
        Conversation("Answer in a few words.", (_GARDEN, _BREAD)),
    ),
    Asked("At what time?", "Dentist: Tuesday 14 March at 9:30, Dr. Meyer.", Conversation(turns=(_DENTIST,))),
)
