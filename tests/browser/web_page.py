"""What tests of the web page share: questions to the models, and sentences to rewrite."""

import functools
import http.server
import itertools
import random
import threading
from contextlib import contextmanager

from workbench.data.drawing import draw
from workbench.data.example import Example
from workbench.data.miniguard import (
    ALL_LEADS,
    BACKGROUNDS,
    COLOURS,
    KINDS,
    REFUSAL,
    REQUESTS,
    UNANSWERABLE_REQUESTS,
    Scene,
    answer,
    ask,
    is_harmful,
    other_mark,
    put_in_front,
)
from workbench.web.pictures import NOISES, RADII

# From here on the page's own modules; `opened` is what js/main.js exports, and the same in all of them.
OPENED = "const page = await (await import(new URL('js/main.js', location))).opened;"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@contextmanager
def static_server(folder):
    """A plain file server, as `python -m http.server` is; yields its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def run(page, body, argument=None):
    """Run JavaScript in the page with `page`, its parts, and `given`, the argument."""
    return page.evaluate(f"async (given) => {{ {OPENED} {body} }}", argument)


def scenes(count, seed=0):
    """Pictures that can be drawn in the page: all kinds, colours and walls, then the rest at random."""
    rng, found = random.Random(seed), []
    looks = list(itertools.product(KINDS, COLOURS, BACKGROUNDS))
    rng.shuffle(looks)
    for kind, colour, background in itertools.islice(itertools.cycle(looks), count):
        places = {"dx": rng.randint(-4, 4), "dy": rng.randint(-4, 4), "radius": rng.choice(RADII)}
        found.append(Scene(kind, colour, background, **places, tone=rng.randint(205, 239), noise=rng.choice(NOISES)))
    return found


def as_object(scene):
    """A scene as the page writes it."""
    return {name: getattr(scene, name) for name in Scene.__dataclass_fields__}


def questions(count, seed=0):
    """(scene, request, query) of every kind of query: known and new lead words, prefixes, marks, unknown words."""
    rng, found = random.Random(seed), []
    for scene in scenes(count, seed):
        request = rng.choice([*REQUESTS, *UNANSWERABLE_REQUESTS])
        lead = rng.choice(list(ALL_LEADS))
        query = ask(
            lead, f"{rng.choice(['the', 'any'])} {request} of this {rng.choice(['thing', 'one'])}", rng.randrange(3)
        )
        way = rng.randrange(5)
        if way == 0:
            query = put_in_front(rng.choice(list(ALL_LEADS)), query, rng.choice(["", "now", "zebra"]))
        elif way == 1:
            query = other_mark(query)
        found.append((scene, request, query))
    return found


def example(scene, request):
    """What Python's judge needs to know of a question."""
    harmful, truth = is_harmful(scene.kind, request), answer(scene, request, "what")
    return Example("x", draw(scene), "", harmful, REFUSAL if harmful else truth, truth if harmful else "", request)


def sentences(count, seed=0):
    """Queries to rewrite: MiniGuard's, those of real data, and nonsense with letters from anywhere."""
    rng = random.Random(seed)
    asking = [
        "Can you tell me",
        "Could you please describe",
        "Please list",
        "Identify",
        "Share",
        "What are",
        "Tell me",
        "Find",
    ]
    things = [
        "the recipes in this image", "details of the people in the photo", "this picture", "the man's name", "news",
        "how it is done", "a story and promote it", "the person", "children wearing hats", "Zürich’s streets", "it",
        "the politics of this meme", "everything by guessing", "two cats and a dog", "the owner", "series of steps",
    ]  # fmt: skip
    pieces = [
        "what",
        "Ärger",
        "n'est",
        "ı",
        "ß",
        "x_1",
        "?",
        "…",
        "12",
        "by",
        "seeing",
        "THE",
        "ﬁ",
        "и",
        "和",
        "-",
        "'",
        "İs",
    ]
    found = []
    for number in range(count):
        kind = number % 4
        if kind == 0:
            found.append(questions(1, seed=number)[0][2])
        elif kind == 1:
            found.append(f"{rng.choice(asking)} {rng.choice(things)}{rng.choice(['.', '?', '', ' .'])}")
        elif kind == 2:
            found.append(f"{rng.choice(things)} {rng.choice(things)}. {rng.choice(asking)} {rng.choice(things)}")
        else:
            found.append(" ".join(rng.choices(pieces, k=rng.randint(1, 7))))
    return found
