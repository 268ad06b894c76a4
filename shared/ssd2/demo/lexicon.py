"""The words that the invented town and the notes of the people in it are made of."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(";"))


PLACE_FIRST = _words("""
    Amber Azure Birch Brass Bright Cedar Cherry Clover Cobalt Copper Coral Crimson Crystal Dapple Ebony Elder Ember
    Fern Flint Frost Garnet Ginger Golden Hazel Holly Honey Indigo Ivory Jasper Juniper Laurel Lemon Lilac Linden
    Lunar Maple Marble Meadow Misty Nettle Noble Ocean Olive Onyx Opal Pearl Pepper Pine Plum Quartz Quiet Raven
    River Rose Ruby Rustic Saffron Sage Scarlet Silver Spruce Sunny Thistle Velvet
""")
PLACE_SECOND = _words("""
    Anchor Arch Barn Basket Bell Bridge Candle Castle Clock Compass Corner Cottage Crown Dragon Falcon Feather
    Fountain Fox Gallery Garden Gate Hall Hammer Harbor Heron House Kettle Kitchen Ladder Lantern Lodge Loom Mill
    Mirror Oven Owl Palace Pavilion Pier Rooster Shelf Stable Table Tower Tree Wagon Wheel Window
""")
FIRST_NAMES = _words("""
    Ada Amos Bela Bruno Carla Cleo Dana Dario Edith Elias Fiona Franz Greta Hugo Ida Ilya Jana Jonas Karin Leo Lotte
    Marta Milo Nadia Nils Nora Odile Oscar Petra Quinn Ralf Rita Samir Selma Tara Theo Ulla Vera Viktor Yara
""")
SURNAMES = _words("""
    Abel Arden Baker Bauer Brandt Clarke Costa Dorn Eaton Engel Farrow Field Grant Haas Hale Iver Jansen Keller
    Kovac Lang Lindt Marsh Mercer Moreau Novak Ortiz Palmer Price Quist Reyes Rossi Sander Stone Tanner Ueda Vance
    Voss Walsh Weber Zeller
""")
STREETS = _words("""
    Abbey Bank Canal Chapel Church Dock Ferry Forge Grove High Hill King Lake Market Mint North Orchard Park Queen
    Station Temple Vine Water West Bridge Castle Garden Mill Oak Palace School Tower
""")
KINDS = _words("""
    bakery barber cafe cinema clinic florist gallery gym hotel library museum pharmacy restaurant school studio
    theatre
""")
SPECIALITIES = _phrases("""
    apple pie; bean soup; black tea; blue cheese; brown bread; carrot cake; cold beer; corn bread; fish stew; fresh
    juice; fried rice; garlic bread; green tea; grilled trout; handmade soap; hot chocolate; iced coffee; jazz
    music; knitted hats; live music; lamb curry; mint tea; mushroom risotto; nut cake; old maps; onion soup; paper
    kites; pear tart; potted plants; quick repairs; rare books; rice pudding; roast duck; salted caramel; silk
    scarves; smoked fish; stuffed peppers; sweet wine; vintage prints; wooden toys
""")
TOPIC_SUBJECTS = _words("""
    art board book budget chess choir cooking dance debate drama drawing family film fitness flute garden guitar
    history knitting language music parent photo piano poetry pottery project quiz safety school singing staff swim
    tax team tennis theatre violin wine writing yoga youth
""")
TOPIC_OCCASIONS = _words("""
    class club course dinner evening group lesson lunch meeting party session test trip visit workshop
""")
CODED_THINGS = _words("""
    attic bike box cabin cellar desk door elevator garage gate gym laptop letterbox locker office parking printer
    safe shed storage suitcase tablet trailer vault
""")
OBJECTS = _phrases("""
    bank card; bus pass; camera bag; car manual; drill set; medicine kit; gift card; glue gun; green folder; house
    deed; laptop charger; photo album; paint brush; passport copy; picnic blanket; rain coat; reading lamp; sewing
    kit; spare key; sun hat; tape measure; tea towel; tool belt; travel plug; winter scarf; wool blanket
""")
COLOURS = _words("""
    beige black blue brown green grey orange pink purple red white yellow
""")
FURNITURE = _words("""
    bag basket box bucket cabinet case chest closet crate cupboard drawer jar shelf tin trunk
""")
ROLES = _words("""
    accountant architect babysitter carpenter caterer coach dentist doctor electrician florist gardener hairdresser
    landlord lawyer mechanic neighbour painter pharmacist plumber roofer tailor teacher translator vet
""")
WEEKDAYS = _words("""
    Monday Tuesday Wednesday Thursday Friday Saturday Sunday
""")


def all_words() -> tuple[str, ...]:
    """Every word of the lists above, sorted."""
    lists = (value for name, value in sorted(globals().items()) if name.isupper())
    return tuple(sorted({word for values in lists for phrase in values for word in phrase.split()}))
