"""Makes the extract of WordNet 3.0's nouns that the crate holds. Building never needs this.

    apt-get download wordnet-base && dpkg-deb -x wordnet-base_*.deb wordnet-base
    python3 scripts/wordnet.py wordnet-base/usr/share/wordnet

Only Debian's wordnet-base 1:3.0-37 (or Princeton's WordNet-3.0.tar.gz) will do: WordNet 3.1 has other offsets,
and ImageNet's ids are offsets of 3.0. The same input gives the same text.

Writes crates/richsem/src/mapping/wordnet/nouns.gz, text in parts that a \\x1e separates. A part has a line
a synset, in the order of offsets:

    0  the licence (its own lines), which must stay with every copy
    1  offset, as the difference to the one before
    2  lexicographer file, 3 to 28 (https://wordnet.princeton.edu/documentation/lexnames5wn)
    3  hypernyms: numbers of synsets, the first is 0; of an instance (`@i`) after an `i`
    4  what it is a part of (`#p`): numbers of synsets
    5  words in lower case, with #N where this is the word's N-th sense and not its first
    6  gloss without examples; empty outside of things that can be seen (CONCRETE)
    7  plurals that no rule finds (noun.exc): `aardwolves aardwolf`, a line each
"""

import gzip
import re
import sys
from pathlib import Path

# The roots, animals, artifacts, body parts, food, objects, people, plants, shapes, substances.
CONCRETE = {3, 5, 6, 8, 13, 17, 18, 20, 25, 27}
TARGET = Path(__file__).parent.parent / "crates/richsem/src/mapping/wordnet/nouns.gz"


def synsets(folder):
    licence, found = [], []
    for line in (folder / "data.noun").read_text("ascii").splitlines():
        if line.startswith("  "):
            licence.append(re.sub(r"^ +\d+ ?", "", line).rstrip())
            continue
        data, _, gloss = line.partition("|")
        fields = data.split()
        words = int(fields[3], 16)
        at = 4 + 2 * words
        pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
        found.append(
            {
                "offset": int(fields[0]),
                "file": int(fields[1]),
                "words": [w.lower() for w in fields[4:at:2]],
                "pointers": [(p[0], int(p[1])) for p in pointers if p[2] == "n"],
                "gloss": re.split(r';? *"', gloss.strip())[0].strip(" ;:"),
            }
        )
    assert found == sorted(found, key=lambda s: s["offset"])
    return licence, found


def senses(folder):
    """Number of a sense by (word, offset): index.noun lists a word's synsets in this order."""
    numbers = {}
    for line in (folder / "index.noun").read_text("ascii").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split()
        for number, offset in enumerate(fields[-int(fields[2]) :], 1):
            numbers[fields[0], int(offset)] = number
    return numbers


def main(folder):
    licence, found = synsets(folder)
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in licence
    numbers, index = senses(folder), {s["offset"]: i for i, s in enumerate(found)}

    def word(synset, text):
        number = numbers[text, synset["offset"]]
        return text if number == 1 else f"{text}#{number}"

    def hypernyms(synset):
        wanted = [(p, index[o]) for p, o in synset["pointers"] if p in ("@", "@i")]
        return ",".join(f"i{i}" if p == "@i" else str(i) for p, i in wanted)

    def parts(synset):
        return ",".join(str(index[o]) for p, o in synset["pointers"] if p == "#p")

    offsets = [0] + [s["offset"] for s in found]
    exceptions = (folder / "noun.exc").read_text("ascii").splitlines()
    columns = [
        licence,
        [str(after - before) for before, after in zip(offsets, offsets[1:])],
        [str(s["file"]) for s in found],
        [hypernyms(s) for s in found],
        [parts(s) for s in found],
        # A word may be there in two cases (`Earth`, `earth`): once is enough.
        [" ".join(dict.fromkeys(word(s, w) for w in s["words"])) for s in found],
        [s["gloss"] if s["file"] in CONCRETE else "" for s in found],
        [line.strip() for line in exceptions if line.strip()],
    ]
    text = "\x1e".join("\n".join(lines) for lines in columns)
    TARGET.write_bytes(gzip.compress(text.encode("ascii"), 9, mtime=0))
    print(f"{TARGET}: {len(found)} synsets, {len(text)} bytes, packed {TARGET.stat().st_size}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
