"""Words of the generated captions in English and German, most frequent first."""

from dataclasses import dataclass
from typing import Literal

Gender = Literal["m", "f", "n"]


@dataclass(frozen=True)
class Noun:
    """A noun in both languages. ``oblique``: German singular in other cases than the nominative, for weak nouns."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: Gender
    oblique: str


@dataclass(frozen=True)
class Verb:
    """A verb: the English participle, and the German third person.

    ``prefix``: separable prefix of the German verb. ``objects``: class of nouns that are objects of the verb; empty for
    none.
    """

    english: str
    singular: str
    plural: str
    prefix: str
    objects: str


@dataclass(frozen=True)
class Place:
    """A place: a preposition in both languages (with the dative in German), and its noun."""

    english: str
    german: str
    noun: Noun


@dataclass(frozen=True)
class Adjective:
    """An adjective. ``german`` is the stem without ending."""

    english: str
    german: str


def _noun(text: str) -> Noun:
    english, english_plural, german, german_plural, gender, *oblique = text.replace("_", " ").split("|")
    assert gender in ("m", "f", "n"), text
    return Noun(english, english_plural, german, german_plural, gender, *(oblique or [german]))  # type: ignore[arg-type]


def _nouns(text: str) -> tuple[Noun, ...]:
    return tuple(_noun(entry) for entry in text.split())


def _verbs(text: str) -> tuple[Verb, ...]:
    return tuple(Verb(*entry.replace("_", " ").split("|")) for entry in text.split())


def _adjectives(text: str) -> tuple[Adjective, ...]:
    return tuple(Adjective(*entry.split("|")) for entry in text.split())


def _places(text: str) -> tuple[Place, ...]:
    found = []
    for entry in text.split():
        english, german, noun = entry.split("|", 2)
        found.append(Place(english.replace("_", " "), german, _noun(noun)))
    return tuple(found)


PEOPLE = _nouns("""
    man|men|Mann|Männer|m woman|women|Frau|Frauen|f boy|boys|Junge|Jungen|m|Jungen girl|girls|Mädchen|Mädchen|n
    child|children|Kind|Kinder|n dog|dogs|Hund|Hunde|m player|players|Spieler|Spieler|m lady|ladies|Dame|Damen|f
    worker|workers|Arbeiter|Arbeiter|m tourist|tourists|Tourist|Touristen|m|Touristen
    nurse|nurses|Pflegerin|Pflegerinnen|f
    soldier|soldiers|Soldat|Soldaten|m|Soldaten farmer|farmers|Landwirt|Landwirte|m cook|cooks|Koch|Köche|m
    teacher|teachers|Lehrerin|Lehrerinnen|f toddler|toddlers|Kleinkind|Kleinkinder|n
    singer|singers|Sängerin|Sängerinnen|f
    cyclist|cyclists|Radfahrer|Radfahrer|m police_officer|police_officers|Polizist|Polizisten|m|Polizisten
    student|students|Schülerin|Schülerinnen|f athlete|athletes|Sportler|Sportler|m
    fisherman|fishermen|Fischer|Fischer|m
    bride|brides|Braut|Bräute|f clown|clowns|Clown|Clowns|m acrobat|acrobats|Akrobat|Akrobaten|m|Akrobaten
""")

#: Class of objects → its nouns.
OBJECTS = {
    "people": PEOPLE,
    "clothes": _nouns("""
        shirt|shirts|Hemd|Hemden|n jacket|jackets|Jacke|Jacken|f hat|hats|Hut|Hüte|m
        dress|dresses|Kleid|Kleider|n
        cap|caps|Mütze|Mützen|f coat|coats|Mantel|Mäntel|m sweater|sweaters|Pullover|Pullover|m
        T-shirt|T-shirts|T-Shirt|T-Shirts|n helmet|helmets|Helm|Helme|m scarf|scarves|Schal|Schals|m
        apron|aprons|Schürze|Schürzen|f uniform|uniforms|Uniform|Uniformen|f skirt|skirts|Rock|Röcke|m
    """),
    "things": _nouns("""
        ball|balls|Ball|Bälle|m bag|bags|Tasche|Taschen|f box|boxes|Kiste|Kisten|f
        umbrella|umbrellas|Regenschirm|Regenschirme|m
        flag|flags|Fahne|Fahnen|f stick|sticks|Stock|Stöcke|m camera|cameras|Kamera|Kameras|f
        cup|cups|Tasse|Tassen|f
        toy|toys|Spielzeug|Spielzeuge|n rope|ropes|Seil|Seile|n ladder|ladders|Leiter|Leitern|f
        basket|baskets|Korb|Körbe|m balloon|balloons|Ballon|Ballons|m bucket|buckets|Eimer|Eimer|m
        surfboard|surfboards|Surfbrett|Surfbretter|n suitcase|suitcases|Koffer|Koffer|m
    """),
    "texts": _nouns("""
        book|books|Buch|Bücher|n newspaper|newspapers|Zeitung|Zeitungen|f letter|letters|Brief|Briefe|m
        sign|signs|Schild|Schilder|n map|maps|Karte|Karten|f poster|posters|Plakat|Plakate|n
    """),
    "machines": _nouns("""
        bicycle|bicycles|Fahrrad|Fahrräder|n car|cars|Auto|Autos|n boat|boats|Boot|Boote|n
        motorcycle|motorcycles|Motorrad|Motorräder|n cart|carts|Karren|Karren|m
        truck|trucks|Lastwagen|Lastwagen|m
        tractor|tractors|Traktor|Traktoren|m|Traktor sled|sleds|Schlitten|Schlitten|m
    """),
    "windows": _nouns("""
        window|windows|Fenster|Fenster|n door|doors|Tür|Türen|f gate|gates|Tor|Tore|n lamp|lamps|Lampe|Lampen|f
    """),
}

#: Things that somebody wears or carries, after ``with``.
FEATURES = _nouns("""
    smile|smiles|Lächeln|Lächeln|n backpack|backpacks|Rucksack|Rucksäcke|m
    umbrella|umbrellas|Regenschirm|Regenschirme|m
    camera|cameras|Kamera|Kameras|f tattoo|tattoos|Tattoo|Tattoos|n stick|sticks|Stock|Stöcke|m
""")

WEARING = Verb("wearing", "trägt", "tragen", "", "clothes")

TRANSITIVE = _verbs("""
    holding|hält|halten||things reading|liest|lesen||texts carrying|trägt|tragen||things
    watching|beobachtet|beobachten||people
    repairing|repariert|reparieren||machines throwing|wirft|werfen||things
    photographing|fotografiert|fotografieren||people
    holding_up|hält|halten|hoch|things looking_at|sieht|sehen|an|people cleaning|putzt|putzen||windows
    picking_up|hebt|heben|auf|things pushing|schiebt|schieben||machines opening|macht|machen|auf|windows
    painting|bemalt|bemalen||windows hugging|umarmt|umarmen||people pulling|zieht|ziehen||machines
    closing|macht|machen|zu|windows putting_up|hängt|hängen|auf|texts washing|wäscht|waschen||machines
    calling|ruft|rufen|an|people buying|kauft|kaufen||things reading_aloud|liest|lesen|vor|texts
    putting_on|zieht|ziehen|an|clothes following|verfolgt|verfolgen||people taking_away|nimmt|nehmen|weg|things
""")

INTRANSITIVE = _verbs("""
    sitting|sitzt|sitzen|| standing|steht|stehen|| walking|geht|gehen|| running|läuft|laufen||
    playing|spielt|spielen||
    sleeping|schläft|schlafen|| working|arbeitet|arbeiten|| dancing|tanzt|tanzen|| waiting|wartet|warten||
    getting_up|steht|stehen|auf| singing|singt|singen|| laughing|lacht|lachen|| arriving|kommt|kommen|an|
    talking|spricht|sprechen|| cleaning_up|räumt|räumen|auf| eating|isst|essen||
    falling_asleep|schläft|schlafen|ein|
    driving_off|fährt|fahren|los| training|trainiert|trainieren|| smiling|lächelt|lächeln||
""")

PLACES = _places("""
    in|in|park|parks|Park|Parks|m on|auf|street|streets|Straße|Straßen|f at|an|beach|beaches|Strand|Strände|m
    on|auf|lawn|lawns|Wiese|Wiesen|f in_front_of|vor|building|buildings|Gebäude|Gebäude|n
    in|in|kitchen|kitchens|Küche|Küchen|f
    at|an|table|tables|Tisch|Tische|m next_to|neben|lake|lakes|See|Seen|m under|unter|tree|trees|Baum|Bäume|m
    on|auf|stage|stages|Bühne|Bühnen|f behind|hinter|fence|fences|Zaun|Zäune|m in|in|field|fields|Feld|Felder|n
    near|an|river|rivers|Fluss|Flüsse|m at|an|bus_stop|bus_stops|Bushaltestelle|Bushaltestellen|f
    on|auf|roof|roofs|Dach|Dächer|n in|in|garden|gardens|Garten|Gärten|m
    between|zwischen|wall|walls|Mauer|Mauern|f
    in|in|restaurant|restaurants|Restaurant|Restaurants|n on|auf|bridge|bridges|Brücke|Brücken|f
    behind|hinter|shop|shops|Geschäft|Geschäfte|n in|in|workshop|workshops|Werkstatt|Werkstätten|f
    next_to|neben|fountain|fountains|Brunnen|Brunnen|m on|auf|square|squares|Platz|Plätze|m
""")

OF_PEOPLE = _adjectives("""
    young|jung old|alt little|klein tall|groß blond|blond tired|müd happy|glücklich serious|ernst
    friendly|freundlich barefoot|barfüßig elegant|elegant
""")

OF_CLOTHES = _adjectives("""
    red|rot blue|blau white|weiß black|schwarz green|grün yellow|gelb brown|braun new|neu gray|grau
    colorful|bunt
    striped|gestreift thick|dick
""")

OF_THINGS = _adjectives("""
    red|rot small|klein large|groß blue|blau white|weiß black|schwarz green|grün yellow|gelb new|neu brown|braun
    wooden|hölzern gray|grau broken|kaputt dirty|schmutzig
""")

#: Class of objects → adjectives that fit them. Other classes use :data:`OF_THINGS`.
ADJECTIVES = {"people": OF_PEOPLE, "clothes": OF_CLOTHES}
