"""Generators of texts that cannot be listed: numbers, amounts of money, e-mail addresses, smileys and gibberish."""

from random import Random

from sparse_bench.data.sara_like.grammar import Generator, pick

CONSONANTS = "bcdfghjklmnprstvwz"
VOWELS = "aeiou"
HOSTS = ("mailhub", "postbox", "example", "inbox", "webmail", "letterbox", "corpmail", "homemail")
DOMAINS = ("com", "net", "org", "io", "example", "co", "me")
CURRENCIES = ("euros", "dollars", "usd", "eur", "pounds", "k", "€", "$", "")
SMILEYS = (":D", ":-D", ":p", "^^", ";-D", "<3", "xD", ":/", ":-/", "👍", "😀", "🙈", "🎉", "🤖", "☕")
ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def gibberish(random: Random) -> str:
    """Random letters of one row of the keyboard."""
    row = ROWS[pick(random, len(ROWS))]
    return "".join(row[pick(random, len(row))] for _ in range(1 + pick(random, 8)))


def number(random: Random) -> str:
    """A whole number, usually a round one."""
    digits = 1 + pick(random, 9)
    zeros = pick(random, 5)
    return f"{digits}{'0' * zeros}" if random.random() < 0.7 else str(pick(random, 20_000))


def money(random: Random) -> str:
    """An amount, with or without a currency."""
    amount = number(random)
    currency = CURRENCIES[pick(random, len(CURRENCIES))]
    if currency in ("€", "$"):
        return currency + amount
    return amount + currency if currency == "k" else f"{amount} {currency}".rstrip()


def email(random: Random) -> str:
    """An invented e-mail address."""
    name = "".join(
        CONSONANTS[pick(random, len(CONSONANTS))] + VOWELS[pick(random, len(VOWELS))]
        for _ in range(2 + pick(random, 3))
    )
    return f"{name}@{HOSTS[pick(random, len(HOSTS))]}.{DOMAINS[pick(random, len(DOMAINS))]}"


def emoji(random: Random) -> str:
    """An emoji, or a smiley typed in characters."""
    return SMILEYS[pick(random, len(SMILEYS))]


GENERATORS: dict[str, Generator] = {
    "gibberish": gibberish,
    "number": number,
    "money": money,
    "email": email,
    "emoji": emoji,
}
