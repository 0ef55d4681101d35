"""`family`: one network for each of several budgets or devices, in one run."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zeroshot_nas.architecture.architecture import Architecture
from zeroshot_nas.core.files import write_text
from zeroshot_nas.core.progress import progress_bar
from zeroshot_nas.core.state import RunState
from zeroshot_nas.errors import (
    DepthWarning,
    FamilyWarning,
    InfeasibleBudgetError,
    LatencyWarning,
    MissingExtraError,
    ObjectiveError,
    ProposalsWarning,
)
from zeroshot_nas.families.family import FREE, NESTED, RESULT_FILE, Family, Member
from zeroshot_nas.families.neighbours import fitted
from zeroshot_nas.families.nesting import NestedSpace
from zeroshot_nas.families.plot import PLOT, write_family_plot
from zeroshot_nas.families.targets import Budgets, Target, as_table, by_size, is_in_order, named
from zeroshot_nas.runs.options import RunOptions
from zeroshot_nas.runs.session import RunSession
from zeroshot_nas.scoring.proxy import Proxy, ProxyFunction
from zeroshot_nas.searchers.base import Candidate, SearchResult
from zeroshot_nas.searching.call import call_of
from zeroshot_nas.searching.loop import search
from zeroshot_nas.searching.request import Request, made_space, request
from zeroshot_nas.searching.rounds import RESULT_FILE as SEARCH_FILE
from zeroshot_nas.searching.settings import SearchSettings
from zeroshot_nas.spaces.base import SearchSpace

FILES = (RESULT_FILE, f"{PLOT}.png", f"{PLOT}.svg")
"""What a family leaves, beside its store, searches and architectures; the first says that it is finished."""

SCORES = "scores.db"
"""Scores that the searches of a run share."""

TAUGHT = 32
"""Finalists of a neighbour that a search begins with, each fitted to its budget."""

FIRST_SHARE = 2
"""Shares of the proposals that the first search has, which begins with nothing; each other one has one."""

LEAST_FINALISTS = 20
"""Finalists of a member at least."""

ISLANDS, LEAST_ISLAND = 2, 2_000
"""Islands of a member's search unless their number is given, where each has so many proposals."""


def family(
    space: str | SearchSpace,
    proxy: str | Proxy | ProxyFunction | None = None,
    budgets: Budgets = (),
    settings: SearchSettings | None = None,
    run: RunOptions | None = None,
    *,
    nested: bool = False,
    input_size: Sequence[int] | None = None,
    num_classes: int | None = None,
    backend: str = "onnxruntime",
    **options: Any,
) -> Family:
    """Searches a space for one network within each of several budgets, as `zeroshot_nas.search` does for one.

    The searches share the proposals of one. The smallest budget comes first; every other search begins with its
    neighbour's finalists, all widths times a number so that they use the new budget up. So ten networks take about the
    time of one search of as many proposals, and score as if each had been searched for by all of them.

    With ``nested`` each member contains the next smaller one: as many blocks, of the same kinds and strides, with no
    width, kernel or depth smaller, so that weights can be inherited (`zeroshot_nas.train_family`). The largest budget's
    network is taken as it was found, and every smaller one is searched for among those that the next larger one
    contains. So a nested family takes two runs of searches, and the result tells what nesting costs in score.

    The order of the budgets changes nothing. Sizes are told by the FLOPs that networks within a budget have, so that
    limits on parameters, on FLOPs and on the latency of unlike devices go together.

    Args:
        space: A registered space's name, or a `SearchSpace`; of chains (``"resnet"``, ``"mobilenet"``, ``"vanilla"``)
            for a nested family.
        proxy: What to rank by, as in `search`.
        budgets: A `Budget` for each member, or a `Target`, which has a device table too; as a mapping each member has
            its name.
        settings: How to search: ``proposals`` and ``finalists`` are those of all members together.
        run: Where the run is written and by what it is computed; see `RunOptions`. ``out`` holds ``family.json``, for
            each member ``NAME.json``, which every command takes that takes a network, the picture where matplotlib is
            installed, and below ``searches`` and ``nested`` the searches.
        nested: Whether each member contains the next one.
        input_size: Shape ``(C, H, W)`` of one image, for a space given by name; default (3, 32, 32).
        num_classes: Outputs of the classifier, for a space given by name; default 10.
        backend: Engine whose table of this machine predicts latency, where a target without a table limits it.
        options: Settings, run options and options of the strategy one by one, as in `search`.

    Returns:
        The members, the largest budget first. Stopped by Ctrl-C it returns those that are done, in state
        ``"interrupted"``.

    Raises:
        BudgetError: There is no budget, or one is given twice.
        InfeasibleBudgetError: No network fits a budget, or none that the next larger member contains.
        ArchitectureError: A nested family of a space whose networks are no chains of blocks.
        ObjectiveError: Objectives are given; a front has no winner.
        ValueError: There are fewer proposals than members.
        OutputExistsError: ``out`` holds a run, and ``resume`` is not set.
        SettingsChangedError: The run to resume has other settings.

    Warns:
        FamilyWarning: The budgets were in no order; they are sorted.

    Source: what Once-for-all (arXiv:1908.09791) takes from one trained network for every device is searched for here
    by a training-free score, a network for each.

    Example:
        >>> from zeroshot_nas import Budget
        >>> found = family("resnet", "ceres", [Budget(params=50e3), Budget(params=20e3)], input_size=(1, 8, 8),
        ...                proposals=300, progress=False)
        >>> [member.candidate.costs.params <= limit for member, limit in zip(found.members, (50e3, 20e3))]
        [True, True]
    """
    run, rest = (run or RunOptions()).updated(options)
    settings = (settings or SearchSettings()).updated(rest)
    if settings.objectives is not None:
        raise ObjectiveError("a family has one winner for each budget; search for a front instead, or leave objectives")
    where = made_space(space, input_size, num_classes)
    asked = _Asked.of(where, proxy, named(budgets), settings, nested, backend)
    with ExitStack() as stack:
        session = RunSession(stack, run, "family", asked.filed_under, FILES, {"call": asked.call})
        executor = stack.enter_context(run.open_executor())
        work = _Work(asked, session, replace(run, executor=executor, workers=None, time_limit=None))
        found = work.done()
        _finish(found, session)
    return found


@dataclass(frozen=True)
class _Asked:
    """A family as it was asked for.

    Attributes:
        space: Where.
        names: Of the members, the largest budget first.
        targets: What each must keep to.
        requests: Of each the search that it would be alone, with all proposals.
        settings: As given.
        nested: Whether each member contains the next one.
        backend: Engine of this machine's device tables.
    """

    space: SearchSpace
    names: tuple[str, ...]
    targets: Mapping[str, Target]
    requests: Mapping[str, Request]
    settings: SearchSettings
    nested: bool
    backend: str

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        proxy: str | Proxy | ProxyFunction | None,
        targets: Mapping[str, Target],
        settings: SearchSettings,
        nested: bool,
        backend: str,
    ) -> _Asked:
        """Looks everything up, with its errors and warnings, before any work."""
        if nested:
            NestedSpace.checked(space)
        requests = {}
        for name, target in targets.items():
            how: dict[str, Any] = {"input_size": None, "num_classes": None, "options": {}, "backend": backend}
            table = as_table(target.device_table)
            try:
                requests[name] = request(space, proxy, target.budget, settings, None, device_table=table, **how)
            except InfeasibleBudgetError as error:
                raise InfeasibleBudgetError(f"member {name!r}: {error}") from None
        names = by_size(targets, {name: each.table for name, each in requests.items()}, space)
        if not is_in_order(list(targets), names):
            warnings.warn(
                f"the budgets were in no order; they are sorted, the largest first: {', '.join(names)}",
                FamilyWarning,
                stacklevel=3,
            )
        asked = cls(space, tuple(names), targets, requests, settings, nested, backend)
        if asked.proposals < len(names) + FIRST_SHARE - 1:
            raise ValueError(
                f"{len(names)} members need {len(names) + FIRST_SHARE - 1} proposals or more, got {asked.proposals}"
            )
        for begins in (True, False):  # refuses islands and exchanges that a share of the proposals is too small for
            asked.shared(begins).counted(asked.first.screened, space.size())
        return asked

    @property
    def first(self) -> Request:
        """One of the searches, for what all have in common."""
        return self.requests[self.names[0]]

    @property
    def proposals(self) -> int:
        """Of all members together."""
        assert self.first.settings.proposals is not None, "filled in by the request"
        return self.first.settings.proposals

    def shared(self, begins: bool) -> SearchSettings:
        """Settings of one member's search."""
        shares = len(self.names) + FIRST_SHARE - 1
        proposals = self.proposals * (FIRST_SHARE if begins else 1) // shares
        islands = self.settings.islands
        speaks = self.first.screened and self.first.settings.strategy.has_members()
        if islands is None and speaks and proposals >= ISLANDS * LEAST_ISLAND and self.space.size() > proposals:
            islands = ISLANDS
        finalists = min(self.settings.finalists, max(LEAST_FINALISTS, self.settings.finalists // len(self.names)))
        return replace(self.settings, proposals=proposals, finalists=finalists, islands=islands)

    @property
    def filed_under(self) -> dict[str, Any]:
        """What the result depends on, JSON-ready."""
        members = {name: self.requests[name].filed_under for name in self.names}
        return {"members": members, "nested": self.nested, "proxy": self.first.proxy.key}

    @property
    def call(self) -> dict[str, Any]:
        """The arguments as JSON, to ask for the same again."""
        first = self.first
        members = {
            name: call_of(
                self.space,
                first.proxy,
                target.budget,
                self.settings,
                self.backend,
                target.device_table,
            )
            for name, target in self.targets.items()
        }
        return {"nested": self.nested, "members": members}


class _Work:
    """The searches of a family, on their way."""

    def __init__(self, asked: _Asked, session: RunSession, run: RunOptions) -> None:
        self.asked, self.session, self.run = asked, session, run
        self.free: dict[str, SearchResult] = {}
        self.nested: dict[str, SearchResult] = {}

    def done(self) -> Family:
        """Searches, and gives what came of it; Ctrl-C cuts it short."""
        state: RunState = "done"
        asked = self.asked
        searches = len(asked.names) + (len(asked.names) - 1) * asked.nested
        with progress_bar(what="family", unit="search", shown=self.run.progress, total=searches) as bar:
            try:
                self._search_freely(bar)
                if asked.nested:
                    self._search_nested(bar)
            except KeyboardInterrupt:
                state = "interrupted"
                if not (self.nested if asked.nested else self.free):
                    raise
        return self._family(state)

    def _search_freely(self, bar: Any) -> None:
        """The smallest budget first: what fits it fits the next one."""
        before: SearchResult | None = None
        for name in reversed(self.asked.names):
            known = self._is_done(FREE, name)
            before = self._search(self.asked.space, name, FREE, _leaders(before), begins=before is None)
            self.free[name] = before
            self._tell(bar, name, before, known)

    def _search_nested(self, bar: Any) -> None:
        """The largest budget first: whatever it contains can be made small enough, if anything can."""
        largest, *smaller = self.asked.names
        self.nested[largest] = before = self.free[largest]
        outer_name = largest
        for name in smaller:
            outer = before.best.architecture
            where, known = NestedSpace(NestedSpace.checked(self.asked.space), outer), self._is_done(NESTED, name)
            try:
                before = self._search(where, name, NESTED, [outer, *_leaders(before)], begins=False)
            except InfeasibleBudgetError as error:
                raise InfeasibleBudgetError(
                    f"no network that {outer_name!r} contains was found within {name!r}: {error}. Or leave out nested, "
                    "or take budgets that are nearer to each other"
                ) from None
            self.nested[name], outer_name = before, name
            self._tell(bar, name, before, known)

    def _is_done(self, folder: str, name: str) -> bool:
        """Whether an earlier process of the run finished a search."""
        return self.run.folder is not None and (self.run.folder / folder / name / SEARCH_FILE).is_file()

    def _search(
        self, where: SearchSpace, name: str, folder: str, neighbours: Sequence[Architecture], *, begins: bool
    ) -> SearchResult:
        asked, target = self.asked.requests[name], self.asked.targets[name]
        first = fitted(neighbours, where, target.budget, asked.table)
        out = None if self.run.folder is None else self.run.folder / folder / name
        cache = self.run.cache if self.run.folder is None or self.run.cache else self.run.folder / SCORES
        shows = self.run.progress and not self.asked.first.screened  # a screen is over before one could read
        run = replace(self.run, out=out, resume=out is not None, force=False, cache=cache, progress=shows, callbacks=())
        settings = self.asked.shared(begins)
        table = asked.table if asked.table is not None and target.device_table is not None else None
        with _said_before():
            result = search(
                where,
                asked.proxy,
                target.budget,
                settings,
                run,
                backend=self.asked.backend,
                device_table=table,
                first=first,
            )
        if result.state != "done":
            raise KeyboardInterrupt
        return result

    def _tell(self, bar: Any, name: str, result: SearchResult, known: bool) -> None:
        bar.set_postfix_str(f"{name} {_score(result.best):.5g}", refresh=False)
        bar.update()
        costs = {cost: value for cost, value in result.best.costs.to_dict().items() if value is not None}
        about = {"name": name, "architecture": result.best.string or result.best.architecture.to_json()}
        step = len(self.free) + max(0, len(self.nested) - 1)
        self.session.hooks.tell("member", step, {**costs, "score": _score(result.best)}, about, known=known)

    def _family(self, state: RunState) -> Family:
        asked = self.asked
        found = self.nested if asked.nested else self.free
        results = [*self.free.values(), *(each for name, each in self.nested.items() if name != asked.names[0])]
        return Family(
            members=tuple(self._member(name, found[name]) for name in asked.names if name in found),
            proxy=asked.first.proxy.key,
            nested=asked.nested,
            proposals=sum(each.counts.proposed for each in results),
            seconds=sum(each.seconds["total"] for each in results),
            settings={**asked.filed_under, "lower_is_better": asked.first.proxy.sign < 0},
            state=state,
        )

    def _member(self, name: str, result: SearchResult) -> Member:
        asked = self.asked.requests[name]
        free = self.free[name] if self.asked.nested else None
        return Member(
            name,
            asked.budget.limits(),
            "" if asked.table is None or asked.latency is None else asked.table.fingerprint.device,
            result.best.written_by(self.asked.space),
            None if result.latency is None else result.latency["measured_ms"],
            None if free is None else _score(free.best),
        )


def _leaders(result: SearchResult | None) -> list[Architecture]:
    """The fittest networks of a search, the best first."""
    if result is None:
        return []
    ranked = sorted(result.history, key=lambda candidate: -candidate.fitness)
    return list(dict.fromkeys([result.best.architecture, *(each.architecture for each in ranked[:TAUGHT])]))


def _score(candidate: Candidate) -> float:
    return next(iter(candidate.scores.values())).value


@contextmanager
def _said_before() -> Iterator[None]:
    """Leaves out warnings that the family's own requests gave."""
    with warnings.catch_warnings():
        for kind in (DepthWarning, LatencyWarning, ProposalsWarning):
            warnings.simplefilter("ignore", kind)
        yield


def _finish(found: Family, session: RunSession) -> None:
    """Writes the family's files."""
    values = {f"{each.name} score": each.score for each in found.members}
    session.hooks.will_end(values, {"state": found.state})
    if session.folder is None:
        return
    for each in found.members:
        write_text(member_file(session.folder, each.name), json.dumps(each.candidate.to_dict(), indent=1))
    with suppress(MissingExtraError):
        write_family_plot(found, session.folder)
    write_text(session.folder / RESULT_FILE, found.to_json())
    session.log(found.state, {"members": len(found.members)})


def member_file(folder: Path, name: str) -> Path:
    """The architecture of a member of the family in a folder."""
    return folder / f"{name}.json"


def arguments_of(call: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What to call `family` with to ask for the same again; ``given`` has objects that a file can't hold."""
    from zeroshot_nas.searching.call import arguments_of as of_search

    members = {name: of_search(each, given, folder) for name, each in call["members"].items()}
    first = next(iter(members.values()))
    return {
        "budgets": {name: Target(each["budget"], each["device_table"]) for name, each in members.items()},
        "nested": call["nested"],
        **{name: first[name] for name in ("space", "proxy", "settings", "backend")},
    }
