"""A whole run of the linter: configuration and command line in, findings of all models out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console

from ..base import words
from ..base.atomic_files import is_folder
from ..base.errors import EngineError, LintError, MofaError, nearest
from ..base.words import UNTRAINED
from ..loading.import_target import parse_args
from ..loading.input_files import Make
from ..rewriting.diff import Diff
from .config import Config
from .finding import Finding, Linted, Outcome
from .formats import emit, render
from .rules import RULES
from .runner import Job, Report, failed, lint_model
from .settings import Selection, Settings, parse_prefixes
from .suppressions import Suppressions
from .targets import Checkpoint, calibration_images, configured, of_bundle, of_target

if TYPE_CHECKING:
    from .comparison import Comparison

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Options:
    """What the command line says; see `mofa lint --help`."""

    targets: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    weights: Checkpoint | None = None
    inputs: Make | None = None
    config: Path | None = None
    select: tuple[str, ...] | None = None
    extend_select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    engine: str | None = None
    calibrate: str | None = None
    degrade: str | None = None
    measure: bool = False
    baseline: Path | None = None
    write_baseline: bool = False
    diff: str | None = None
    fix: bool = False
    unsafe_fixes: bool = False
    out: Path | None = None
    overwrite: bool = False
    debug: bool = False


@dataclass
class Done:
    """What a run came to.

    Attributes:
        outcome: the findings that count.
        root: what files are named from.
        fixed: findings that were mended.
        comparison: with another version, where one was given.
    """

    outcome: Outcome
    root: Path
    config: Path | None = None
    fixed: list[Finding] = field(default_factory=list)
    comparison: Comparison | None = None

    def write(self, output_format: str, stream: TextIO) -> None:
        """Write the outcome in an output format; a comparison instead where the format has one."""
        from .comparison import markdown, print_comparison
        from .formats.data import dump

        if self.comparison is not None and output_format == "markdown":
            emit(markdown(self.comparison), stream)
        elif self.comparison is not None and output_format == "json":
            emit(dump(self.comparison, indent=2) + "\n", stream)
        else:
            if self.comparison is not None and output_format == "full":
                print_comparison(self.comparison, Console(file=stream, highlight=False, markup=False, emoji=False))
            emit(render(output_format, self.outcome, RULES, self.root, config=self.config, stream=stream), stream)


def run(options: Options, tell: Tell, say: Callable[[str], None]) -> Done:
    """Lint what the command line and the configuration name.

    Args:
        options: the command line.
        tell: told before every step, with how many models are done and how many there are.
        say: told what a person should know; a line each.

    Raises:
        LintError: bad configuration or options. EngineError, BundleError, RewriteError: as their docstrings say.
    """
    config = _config(options)
    root = _repository(config.root if config else Path.cwd())
    chosen = Selection(
        None if options.select is None else parse_prefixes(options.select, RULES, "--select"),
        parse_prefixes(options.extend_select, RULES, "--extend-select"),
        parse_prefixes(options.ignore, RULES, "--ignore"),
    )
    jobs = [_with(job, chosen, options) for job in _jobs(options, config)]
    for job in jobs:
        if job.settings.engine is not None:
            from ..runtime import engine

            try:
                engine(job.settings.engine)
            except EngineError as error:
                raise config.blames(str(error), "engine") if config and options.engine is None else error from error
    for folder in dict.fromkeys(folder for job in jobs for folder in _run_bundles(job, options, len(jobs))):
        say(f"note: this runs {folder / 'model.py'}: lint what you trust")
    if options.measure and any(job.settings.engine is None for job in jobs):
        raise LintError("--measure needs an engine: name one (engine, or --engine)", code="needs-option")
    destinations = _destinations(options, jobs)
    names = {code: rule.name for code, rule in RULES.items()}
    suppressions = Suppressions(names, root)
    reports = [_linted(job, suppressions, lambda step, n=n: tell(step, n, len(jobs))) for n, job in enumerate(jobs)]  # type: ignore[misc]
    for glob in _idle_globs(jobs, reports):
        say(f"warning: per-path-ignores: {glob!r} matches no layer")
    linted = _told_of_comments(reports, suppressions)
    comparison = None
    if options.diff is not None:
        from .comparison import compare

        linted = [report.linted for report in reports]  # unused comments are no matter of versions
        before = [_reference_linted(job, options.diff, root, alone=len(jobs) == 1) for job in jobs]
        comparison = compare(before, linted)
        linted = [_new_only(one, other) for one, other in zip(linted, before, strict=True)]
    if options.baseline is not None:
        linted = _against_baseline(options, reports, linted, say)
    fixed = _fixed(options, jobs, reports, linted, destinations, tell, say) if options.fix else []
    tell("done", len(jobs), len(jobs))
    return Done(Outcome(linted), root, config.file if config else None, fixed, comparison)


def _linted(job: Job, suppressions: Suppressions, tell: Callable[[str], None] = lambda _: None) -> Report:
    """One model's report, without what comments and the configuration take out."""
    report = lint_model(job, tell)
    ran = [] if report.subject is None else [rule.code for rule in report.rules]
    standing, taken = suppressions.split(job.name, report.linted.findings, job.files, ran)
    kept = [finding for finding in standing if not job.settings.ignored(finding.code, finding.path)]
    counts = {"comment": len(taken), "per-path-ignores": len(standing) - len(kept)}
    suppressed = {**report.linted.suppressed, **{name: count for name, count in counts.items() if count}}
    return replace(report, linted=replace(report.linted, findings=tuple(kept), suppressed=suppressed))


def _idle_globs(jobs: Sequence[Job], reports: Sequence[Report]) -> list[str]:
    """Globs of the configuration that match no layer of any model; none where a model's layers are not known."""
    subjects = [report.subject for report in reports]
    paths = [path for subject in subjects if subject for path, _ in subject.model.named_modules(remove_duplicate=False)]
    globs = dict.fromkeys(glob for job in jobs for glob in job.settings.per_path_ignores)
    return [glob for glob in globs if None not in subjects and not any(fnmatchcase(path, glob) for path in paths)]


def _told_of_comments(reports: Sequence[Report], suppressions: Suppressions) -> list[Linted]:
    """With what is wrong with the comments, each at the first model that its file builds."""
    unused = suppressions.report()
    linted = []
    for report in reports:
        one, ran = report.linted, {rule.code for rule in report.rules}
        mine = [finding for finding in unused if finding.model == one.model and finding.code in ran]
        linted.append(replace(one, findings=(*one.findings, *mine)))
    return linted


def _run_bundles(job: Job, options: Options, number: int) -> Iterable[Path]:
    """The bundles whose source is run to lint a model: it, the other version, and what a rule compares with."""
    other = [] if options.diff is None else [options.diff if number == 1 else str(Path(options.diff, job.name))]
    for name in (job.target, *other, job.settings.reference or ""):
        if name and is_folder(Path(name)):
            yield Path(name)


def _reference_linted(job: Job, reference: str, root: Path, *, alone: bool) -> Linted:
    """Another version of a job's model: a target, a bundle, or of several models a folder with a bundle for each.

    Raises:
        LintError: it is none of these, or cannot be linted.
    """
    folder = Path(reference) if alone else Path(reference, job.name)
    if not is_folder(folder) and not alone:
        raise LintError(
            f"--diff {reference}: of several models it has to be a folder with a bundle {job.name} in it",
            code="wrong-kind",
        )
    if folder.is_dir():
        made = of_bundle(job.name, folder, None, job.settings)
        other = replace(job, target=reference, build=made.build, files=made.files, measure=False)
    elif ":" in reference:
        made = of_target(job.name, reference, job.args, None, job.settings)
        other = replace(job, target=reference, build=made.build, files=made.files, measure=False)
    else:
        raise LintError(
            f"--diff {reference}: there is no such bundle, nor is it a target such as package.module:Class",
            code="not-found",
        )
    report = _linted(other, Suppressions({code: rule.name for code, rule in RULES.items()}, root))
    if report.subject is None:
        raise LintError(f"--diff {reference}: {'; '.join(finding.message for finding in report.linted.findings)}")
    return report.linted


def _repository(folder: Path) -> Path:
    """The repository that a folder is in, from which reviewers' tools name files; the folder itself without one."""
    folder = folder.resolve()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)


def _new_only(after: Linted, before: Linted) -> Linted:
    """A model's findings that the other version does not have."""
    from .baseline import Baseline

    was = {finding.fingerprint for finding in before.findings}
    known = Baseline().refreshed([before]).apply(after).findings
    new = tuple(finding for finding in known if finding.fingerprint not in was)
    old = len(after.findings) - len(new)
    counts = {**after.suppressed, **({"the other version": old} if old else {})}
    return replace(after, findings=new, suppressed=counts)


def _against_baseline(
    options: Options, reports: Sequence[Report], linted: list[Linted], say: Callable[[str], None]
) -> list[Linted]:
    from .baseline import Baseline, refresh

    assert options.baseline is not None
    ran = {rule.code for report in reports for rule in report.rules}
    if options.write_baseline:
        known = refresh(options.baseline, linted, ran)
        say(f"{_counted(sum(map(len, known.models.values())), 'known finding')} written to {options.baseline}")
    else:
        known = Baseline.load(options.baseline)
        gone = [entry for one in linted for entry in known.fixed(one, ran)]
        if gone:
            are, them = ("is", "it") if len(gone) == 1 else ("are", "them")
            found = f"{_counted(len(gone), 'finding')} of {options.baseline}"
            say(f"{found} {are} mended: --write-baseline takes {them} out")
    return [known.apply(one) for one in linted]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _fixed(
    options: Options,
    jobs: Sequence[Job],
    reports: Sequence[Report],
    linted: list[Linted],
    destinations: Mapping[str, Path],
    tell: Tell,
    say: Callable[[str], None],
) -> list[Finding]:
    """Carry out fixes, save bundles, and take what was mended out of `linted`."""
    from .fixing import fix, fixable, mended

    fixed: list[Finding] = []
    for place, (job, report, one) in enumerate(zip(jobs, reports, linted, strict=True)):
        wanted = fixable(one.findings, options.unsafe_fixes)
        if report.subject is None or not wanted:
            continue
        left = {finding.code for finding in report.found if finding not in wanted}
        complete = {finding.code for finding in wanted} - left
        try:
            result = fix(report.subject, report.rules, wanted, complete, job.checkpoint, tell)
            saved = result.save(destinations[one.model], overwrite=options.overwrite)
        except MofaError as error:  # the other models' fixes do not wait for it
            if options.debug:
                raise
            linted[place] = replace(one, findings=(*one.findings, failed(report.subject, "fixing it", error)))
            continue
        done = mended(wanted, result)
        say(f"{one.model}: {len(done)} of {len(one.findings)} findings fixed, saved to {saved}")
        if job.checkpoint == "":
            say(
                f"warning: in {saved}, {UNTRAINED}: --checkpoint, or the model's `checkpoint` in the "
                "configuration, takes trained ones"
            )
        for diff in result.diffs:
            say(f"  {diff.pass_name}: {len(diff.rewritten)} layers, {_change(diff)}")
        kept = tuple(finding for finding in one.findings if finding not in done)
        linted[place] = replace(one, findings=kept, fixed=tuple(done))
        fixed += done
    return fixed


def _change(diff: Diff) -> str:
    before, after = diff.before, diff.after
    parameters, macs = after.parameters - before.parameters, after.macs - before.macs
    return f"{words.signed(parameters)} parameters, {words.signed(macs)} MACs"


def _config(options: Options) -> Config | None:
    if options.config is not None:
        return Config.load(options.config, RULES)
    return Config.discover(Path.cwd(), RULES)


def _jobs(options: Options, config: Config | None) -> list[Job]:
    """The models that are named, or all that are configured."""
    known = {model.name: model for model in config.models} if config else {}
    if not options.targets:
        if not known:
            where = f"{config.file} has no [[models]]" if config else "there is no mofa.toml or [tool.mofa]"
            raise LintError(f"nothing to lint: {where}, and no target was given", code="no-data")
        return [configured(config, model) for model in known.values() if config]
    jobs, settings = [], config.settings_for() if config else Settings()
    for target in options.targets:
        if target in known and config:
            if options.arguments or options.inputs or options.weights:
                raise LintError(
                    f"--arg, --input and --checkpoint are for targets, and {target} is configured in {config.file}",
                    code="needs-option",
                )
            jobs.append(configured(config, known[target]))
        elif is_folder(Path(target)):
            if options.arguments or options.weights:
                raise LintError(
                    f"--arg and --checkpoint are for architectures, and {target} is a bundle", code="needs-option"
                )
            jobs.append(of_bundle(Path(target).resolve().name, Path(target), options.inputs, settings))
        elif ":" in target:
            name, args = target.rpartition(":")[2], parse_args(options.arguments)
            jobs.append(of_target(name, target, args, options.inputs, settings, options.weights))
        else:
            hint = nearest(target, known) if known else ""
            raise LintError(
                f"{target!r} is neither a configured model{hint} nor a bundle's folder nor a target such as "
                "package.module:Class or path/to/file.py:Class",
                code="unknown-name",
            )
    names = [job.name for job in jobs]
    for job in jobs:
        if names.count(job.name) > 1:
            raise LintError(
                f"two models are called {job.name}: configure them with names of their own", code="ambiguous"
            )
    return jobs


def _with(job: Job, selection: Selection, options: Options) -> Job:
    settings = job.settings.overridden(selection, options.engine)
    job = replace(job, settings=settings, measure=options.measure, debug=options.debug)
    source, degrade = options.calibrate, options.degrade
    return job if source is None else replace(job, calibration=lambda call: calibration_images(source, degrade, call))


def _destinations(options: Options, jobs: Sequence[Job]) -> dict[str, Path]:
    """Where each model's fixes go, checked before the work."""
    if not options.fix:
        return {}
    from ..bundle.files import check_destination

    assert options.out is not None
    out = options.out.expanduser()
    for job in jobs if len(jobs) > 1 else ():
        if Path(job.name).name != job.name:
            raise LintError(
                f"--fix makes a folder for each model, and {job.name!r} is no folder's name: rename it", code="bad-name"
            )
    found = {job.name: out / job.name if len(jobs) > 1 else out for job in jobs}
    for folder in found.values():
        check_destination(folder, options.overwrite)
    return found
