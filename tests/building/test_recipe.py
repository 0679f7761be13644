"""Recipes as text: what is refused, and that nothing odd gets through."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerrun.building.recipe import EPOCH, Add, Recipe, Run
from layerrun.config.recipe import recipe_from
from layerrun.errors import LayerrunError, UsageError

WHOLE = """
base = "debian"
name = "web"
env = { A = "1", B = "2" }
workdir = "/srv"
source-date-epoch = 5
drop = ["/tmp/**"]

[[step]]
run = "echo"
env = { A = "3" }
network = "host"

[[step]]
run = ["a", "b"]
user = "www"

[[step]]
add = "./x/"
to = "/y/"
owner = "1"
mode = "0600"

[[step]]
write = "/z"
text = ""

[app]
command = ["a"]
[app.policy]
max-size = "1G"
"""


def test_a_whole_recipe():
    found = recipe_from(WHOLE, folder="/f")
    assert found.steps == (
        Run(("/bin/sh", "-ec", "echo"), ("A=3", "B=2"), "/srv", None, "host"),
        Run(("a", "b"), ("A=1", "B=2"), "/srv", "www"),
        Add("/y/", "x", None, (1, 1), 0o600),
        Add("/z", text=""),
    )
    assert (found.base, found.name, found.epoch, found.drop) == ("debian", "web", 5, ("/tmp/**",))
    assert set(found.app) == {"command", "policy"}
    assert Recipe.from_json(found.to_json()) == found


def test_the_time_of_files(monkeypatch):
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert recipe_from('base = "a"').epoch == EPOCH
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "77")
    assert recipe_from('base = "a"').epoch == 77
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    with pytest.raises(UsageError, match="source-date-epoch"):
        recipe_from('base = "a"')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("base = ", "not valid TOML"),
        ("", "does not say its base"),
        ('base = "host"', "changes all the time"),
        ('base = "A"', "bad name of a base"),
        ("base = 1", "base must be a string"),
        ('base = "a"\nsteps = []', "unknown keys: steps"),
        ('base = "a"\nstep = "x"', "steps are tables"),
        ('base = "a"\nname = "a@b"', "it is the profile"),
        ('base = "a"\ndrop = ["x"]', "x"),
        ('base = "a"\nenv = { "A=B" = "" }', "bad variable"),
        ('base = "a"\n[app]\nlayers = []', "app.layers"),
        ('base = "a"\n[app]\nnothing = 1', "app: unknown keys"),
    ],
)
def test_what_makes_no_sense_is_refused(text, said):
    if "env" in text:
        text += '\n[[step]]\nrun = "x"'
    with pytest.raises(UsageError) as caught:
        recipe_from(text, "r.toml")
    assert str(caught.value).startswith("r.toml")
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("", "one of run, add and write"),
        ('run = "a"\nadd = "b"', "two steps"),
        ('run = ""', "command is empty"),
        ("run = []", "command is empty"),
        ('run = ["a\\u0000"]', "NUL"),
        ('run = "a"\nnetwork = "link:x"', "bad network"),
        ('run = "a"\nworkdir = "x"', "absolute"),
        ('run = "a"\nto = "/x"', "unknown keys: to"),
        ('add = "/etc"\nto = "/x"', "a path in the recipe's folder"),
        ('add = "a/../../b"\nto = "/x"', "a path in the recipe's folder"),
        ('add = "a"', "where to"),
        ('add = "a"\nto = "x"', "absolute"),
        ('add = "a"\nto = "/x"\nowner = "root"', "bad owner"),
        ('add = "a"\nto = "/x"\nowner = "70000"', "bad owner"),
        ('add = "a"\nto = "/x"\nmode = "rwx"', "bad mode"),
        ('write = "/x"', "needs a text"),
        ('write = "/x/"\ntext = ""', "a file is written"),
    ],
)
def test_steps_that_make_no_sense_are_refused(step, said):
    with pytest.raises(UsageError, match="step 1") as caught:
        recipe_from(f'base = "a"\n[[step]]\n{step}\n')
    assert said in str(caught.value)


WORDS = st.sampled_from(
    'base step run add to write text name app env "a" "/x" [] {} [["a"]] 1 true = [[step]] [app] \n . - ..'.split(
        " "
    )
)


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=30).map(" ".join) | st.text(max_size=60))
def test_any_text_is_a_recipe_or_refused(text):
    try:
        found = recipe_from('base = "a"\n' + text)
    except LayerrunError:
        return
    assert tomllib.loads('base = "a"\n' + text)
    assert Recipe.from_json(found.to_json()) == found
