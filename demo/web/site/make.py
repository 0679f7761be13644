"""Make the pages: a build step runs this once, not every start."""

import pathlib

import jinja2

page = jinja2.Template("<!doctype html><title>{{ title }}</title><h1>{{ title }}</h1>\n")
public = pathlib.Path("public")
public.mkdir(exist_ok=True)
(public / "index.html").write_text(page.render(title="Built once, reset at any time"))
