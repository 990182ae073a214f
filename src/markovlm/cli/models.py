"""`markovlm models`."""

from __future__ import annotations

import click

from markovlm.cli.flags import Command, print_json
from markovlm.config import flatten
from markovlm.errors import UserError
from markovlm.models.fetch import fetch, is_fetched, place_of
from markovlm.models.registry import EMBEDDED, FETCHED, SUGGESTED, KnownModel
from markovlm.terminal.plain import say


@click.command(cls=Command, short_help="List the models known by name, and their defaults.")
@click.option("--fetch", "name", metavar="NAME", help="fetch a model that is not bundled, through pip, into the cache")
@click.option("--accept-terms", is_flag=True, help="with --fetch: accept the model's terms of use")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def models(name: str | None, accept_terms: bool, as_json: bool) -> None:
    """List the models known by name, and their defaults. Any causal LM works by path or Hub id."""
    from markovlm.terminal.models import show_models

    if accept_terms and name is None:
        raise UserError("--accept-terms is only for --fetch NAME")
    if name is not None:
        if name not in FETCHED:
            raise UserError(f"--fetch {name}: not a model that can be fetched ({', '.join(FETCHED)})")
        place = fetch(name, FETCHED[name].fetched_from, accept_terms=accept_terms)
        print_json({"name": name, "path": str(place)}) if as_json else say(str(place))
    elif as_json:
        known = [{"name": m.name, "summary": m.summary, "defaults": flatten(m.defaults)} for m in EMBEDDED.values()]
        suggested = [{"name": name, "summary": text} for name, text in SUGGESTED.items()]
        print_json({"embedded": known, "fetched": [_described(m) for m in FETCHED.values()], "suggested": suggested})
    else:
        show_models()


def _described(model: KnownModel) -> dict[str, object]:
    source = model.fetched_from
    here = is_fetched(model.name, source)
    return {
        "name": model.name,
        "summary": model.summary,
        "title": source.title,
        "licence": source.licence,
        "terms": source.terms,
        "packages": [package.requirement for package in source.packages],
        "download_bytes": source.bytes,
        "disk_bytes": source.disk,
        "path": str(place_of(model.name, source)) if here else None,
        "defaults": flatten(model.defaults),
    }
