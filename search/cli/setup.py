"""The verbs before a study: plan, new, import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from search.cli.console import console_of, print_json, short
from search.cli.options import AsJson, BatchSize, Data, Epochs, Images, Seed, Study, Trials, overrides
from search.study import study_file


def plan(
    study: Study,
    data: Data = None,
    epochs: Epochs = None,
    trials: Trials = None,
    images: Images = None,
    seed: Seed = None,
    batch_size: BatchSize = None,
    probe: Annotated[bool, typer.Option("--probe", help="time a few trainings on this machine, about a minute")] = False,
    as_json: AsJson = False,
) -> None:
    """Survey the space: the share that fits the budget, smallest and largest network; with --probe a forecast of time."""
    from search.data.dataset import shape_of
    from search.study.dataset import load_study_data
    from search.study.survey import survey_space
    from search.tuning.adoption import assess
    from search.tuning.bayes import Prior
    from search.tuning.candidate import DataFacts
    from search.tuning.checks import check_before_loading, check_networks, recipe_notes
    from search.tuning.forecast import forecast
    from search.tuning.sources import check_data, open_prior, open_sources

    name, path = study_file.find(study)
    config = study_file.load(path, overrides(data, epochs, trials, images, seed, batch_size))
    networks = check_before_loading(config)
    time_forecast = dataset = None
    sources, assessments = open_sources(config), []
    prior_studies = open_prior(config)
    if probe or config.data.path or sources:  # a named set without a path may have to be downloaded, by Keras
        with console_of(stderr=as_json).status("reading the images") as status:
            dataset = load_study_data(config, watch=lambda done, total: status.update(f"{done:,} of {total:,} images read"))
        check_networks(config, networks, dataset.name, DataFacts.of(dataset))
        check_data(sources, dataset)
        assessments = assess(config, DataFacts.of(dataset), sources)
        shape = (dataset.input_shape, dataset.classes)
    else:
        shape = shape_of(config.data.name, None, config.protocol, config.data.holdout)
    survey = survey_space(config.space, config.budget, *shape, seed=config.search.seed)
    if dataset and probe:
        with console_of(stderr=as_json).status("sampling candidates") as status:
            time_forecast = forecast(config, dataset, status.update)
    if as_json:
        keys = ("share_that_fits", "smallest_params", "largest_params_that_fit", "proposals_per_second")
        adoption = {"adoption": [assessment.to_dict() for assessment in assessments]} if assessments else {}
        forecast_values = time_forecast.to_dict() if time_forecast else {}
        return print_json({key: getattr(survey, key) for key in keys} | forecast_values | adoption)
    from search.cli.tables import print_survey

    if dataset and config.data.path:
        console_of().print(dataset.summary(), markup=False, highlight=False, soft_wrap=True)
    print_survey(console_of(), name, config.budget.params, survey, time_forecast)
    for assessment in assessments:
        console_of().print(assessment.text("can be adopted"), markup=False, highlight=False, soft_wrap=True)
    if prior_studies:
        console_of().print(Prior(prior_studies).text, markup=False, highlight=False, soft_wrap=True)
    for note in recipe_notes(config):
        console_of().print(note, markup=False, highlight=False, soft_wrap=True)


def new(
    name: Annotated[str, typer.Argument(help="name of the new study, a folder in studies/")],
    data: Annotated[Path, typer.Option(help="folder of images by class, .npz, or CIFAR's official folder or .tar.gz")],
    budget: Annotated[int, typer.Option(help="parameters; every network must stay under this number", min=1)] = 100_000,
    to: Annotated[Path | None, typer.Option(help="where to create NAME; default: studies/", file_okay=False)] = None,
) -> None:
    """Write a commented study file for your own images: proposes image size, space, base and recipe."""
    from search.cli.new_summary import print_new
    from search.study.new import make

    with console_of().status("reading the images") as status:
        summary = make(name, data, budget, to, lambda done, total: status.update(f"{done:,} of {total:,} images"))
    print_new(console_of(), summary)


def import_(
    model: Annotated[Path, typer.Argument(help="a .keras file, or the JSON of model.to_json()")],
    to: Annotated[Path | None, typer.Option(help="architecture file to write; default: NAME.json", dir_okay=False)] = None,
    nearest: Annotated[bool, typer.Option("--nearest", help="replace unsupported layers by the nearest ones")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="overwrite the file of another network")] = False,
    study: Annotated[str, typer.Option(help="study whose rules and images it is checked against")] = "cifar10_100k",
    budget: Annotated[int | None, typer.Option(help="limit of parameters; default: the study's", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a Keras model of your own to an architecture file; list the rules that it breaks, with remedies."""
    from search.cli.import_table import print_import, to_json
    from search.keras_import.advice import judge, rules_of
    from search.keras_import.convert import read_model
    from search.keras_import.write import write_architecture

    rules = rules_of(study, budget)
    imported = read_model(model)
    findings = judge(imported, rules)
    if as_json:
        print_json(to_json(imported, findings))
    else:
        print_import(console_of(), imported, findings)
    path = write_architecture(imported, model, to, nearest=nearest, replace=replace)
    print(f"The architecture file: {short(path.resolve())}", file=sys.stderr if as_json else sys.stdout)
