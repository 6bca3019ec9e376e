"""Trying an author's promise before the first plan relies on it.

``kind="linear"`` and ``kind="reduction"`` are promises that a plan may rely upon: it takes the step
apart and adds, or combines, what comes of the parts. A false promise would give a wrong result
without any error. So the function is called here on small random data of the form of its inputs:

``linear``
    ``f(A + B)`` against ``f(A) + f(B)``, the same for ``2A - B`` and ``B - 2A``, and with several
    data arguments ``f(a, b)`` against ``f(a, 0) + f(0, b)``.
``reduction``
    The grouping must not matter: of four partial results ``(p ∘ q) ∘ (r ∘ s)`` against
    ``((p ∘ q) ∘ r) ∘ s``, both finished. What a reduction of several pieces *means* is its
    function on each piece, combined; that cannot be wrong.

It is a trial, no proof. What cannot be tried (tables, text, functions that do not run on random data)
is said in a sentence and does no harm. The function runs here and now, in this thread, a dozen times
on 200,000 elements at most, or on two million if it does not run on fewer: nothing stops one that
takes long over so little.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from dask.base import compute

from dataflow.datasets import Extent
from dataflow.errors import NotLinear
from dataflow.execution.compare import APART, NotComparable, difference, leaves, rounding
from dataflow.execution.samples import WHOLE_ELEMENTS, Data, Form, NoSample, form_of
from dataflow.execution.stages import added, call, carried
from dataflow.graph.keys import decode
from dataflow.graph.operation import Functions, Step

_LONGEST_REASON = 200


class _Raised(Exception):
    """The author's code raised, or what it returned cannot be added; the text says what."""


def try_promise(
    step: Step, functions: Functions, extents: Mapping[str, Extent], *, seed: int = 0
) -> str:
    """Try whether a step's operation is what its ``kind`` says.

    Parameters
    ----------
    step
        As the user wrote it; see :func:`dataflow.placement.make.relied_upon`.
    functions
        The callables of its operation.
    extents
        What is known of its inputs; more is ignored.
    seed
        Of the random values: the same seed, the same values.

    Returns
    -------
    str
        Empty if the promise held, else a sentence why it could not be tried.

    Raises
    ------
    NotLinear
        If it did not hold.
    """
    if step.operation.kind not in ("linear", "reduction"):
        return ""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return _try(step, functions, extents, seed)
    except NotLinear:
        raise
    except Exception as error:
        return _could_not(_said(error))


def _try(step: Step, functions: Functions, extents: Mapping[str, Extent], seed: int) -> str:
    linear = step.operation.kind == "linear"
    if functions.function is None or not (linear or functions.combine):
        return _could_not("there is no function")
    inputs = step.inputs[:1] if step.pieces else step.inputs
    try:
        whole = form_of([extents.get(key) for key in inputs])
    except NoSample as error:
        return _could_not(str(error))
    if linear and not whole.summable:
        return _could_not("the values of its inputs cannot be added")
    reason = ""
    for form, chunked in _ways(whole, lazy=step.operation.lazy):
        trial = _Trial(step, functions, form, chunked)
        rng = np.random.default_rng(seed)
        try:
            apart, telling = trial.linear(rng) if linear else trial.reduction(rng)
        except (_Raised, NotComparable) as error:
            # What it says to plain data is what its author understands.
            reason = reason if chunked else str(error)
            continue
        if apart:
            operation = step.operation
            raise NotLinear(operation.name, operation.kind, min(apart, APART), str(form))
        if telling:
            return ""
        reason = "on random values its results are empty, NaN or 0"
    return _could_not(reason)


def _ways(whole: Form, *, lazy: bool) -> Iterator[tuple[Form, bool]]:
    """Forms to try in turn: small before large, plain before Dask-backed."""
    cut = whole.cut()
    forms = [cut]
    if cut != whole and whole.elements <= WHOLE_ELEMENTS:
        forms.append(whole)
    for form in forms:
        yield form, False
        if lazy:
            yield form, True


@dataclass(frozen=True)
class _Trial:
    """One trial with samples of one form: the largest difference, and whether it tells anything."""

    step: Step
    functions: Functions
    form: Form
    chunked: bool

    def linear(self, rng: np.random.Generator) -> tuple[float, bool]:
        a, b = self.form.draw(rng), self.form.draw(rng)
        of_a, of_b = self.apply(a), self.apply(b)
        whole = self.apply(_each(operator.add, a, b))
        apart = self.compare(whole, self.total(of_a, of_b), a)
        if not apart:
            twice = _each(operator.add, a, a)
            if self.form.unsigned:
                more = self.apply(_each(operator.add, twice, b))
                apart = self.compare(more, self.total(of_a, of_a, of_b), a)
            else:
                # Both signs: on few values abs() looks linear as long as they have one sign.
                less = self.apply(_each(operator.sub, twice, b))
                over = self.apply(_each(operator.sub, b, twice))
                apart = self.compare(self.total(less, of_b), self.total(of_a, of_a), a)
                apart = apart or self.compare(self.total(over, of_a, of_a), of_b, a)
        if not apart and len(a) > 1:
            alone = [
                self.apply(tuple(x if i == j else xr.zeros_like(x) for j, x in enumerate(a)))
                for i in range(len(a))
            ]
            apart = self.compare(of_a, self.total(*alone), a)
        telling = any(
            _numbers(array).any() for result in (of_a, of_b) for _, array in leaves(result)
        )
        return apart, telling

    def reduction(self, rng: np.random.Generator) -> tuple[float, bool]:
        samples = [self.form.draw(rng) for _ in range(4)]
        p, q, r, s = (self.apply(sample) for sample in samples)
        join = self.joined
        one = self.finished(join(join(join(p, q), r), s))
        other = self.finished(join(join(p, q), join(r, s)))
        telling = any(_numbers(array).size for _, array in leaves(one))
        return self.compare(one, other, samples[0]), telling

    # --- the author's code --------------------------------------------------------------------------

    def apply(self, sample: tuple[Data, ...]) -> Any:
        """The function on copies: it may change what it gets."""
        copies = [x.copy(deep=True) for x in sample]
        given = [x.chunk() for x in copies] if self.chunked else copies
        slots = self.step.slots[: len(given)]
        named = {name: decode(value) for name, value in self.step.parameters.items()}
        function = self.functions.function
        assert function is not None
        arguments = list(zip(slots, given, strict=True))
        return _run(lambda: call(function, arguments, named))

    def joined(self, left: Any, right: Any) -> Any:
        combine = self.functions.combine
        assert combine is not None
        return _run(lambda: combine(copy.deepcopy(left), copy.deepcopy(right)))

    def finished(self, partial: Any) -> Any:
        finish = self.functions.finish
        return partial if finish is None else _run(lambda: finish(partial))

    def total(self, *results: Any) -> Any:
        """Their sum, as the parts of a split step are added."""
        try:
            return added(results)
        except ValueError:
            # Shapes or coordinates that depend on the values: parts cannot be put together.
            return _Misfit()
        except Exception as error:
            raise _Raised(f"its results cannot be added ({_said(error)})") from error

    def compare(self, left: Any, right: Any, sample: tuple[Data, ...]) -> float:
        if isinstance(left, _Misfit) or isinstance(right, _Misfit):
            return APART
        arrays = [array for data in sample for _, array in leaves(data)]
        numbers = [_numbers(array) for array in arrays]
        # Sums that cancel leave rounding of the size of what went in.
        largest = max((float(np.abs(x).max(initial=0)) for x in numbers), default=0.0)
        noise = largest * max(self.form.elements, 1) ** 0.5
        coarsest = max((array.dtype for array in arrays), key=rounding, default=None)
        return difference(left, right, through=coarsest, noise=noise)


class _Misfit:
    """What stands for a sum of results that do not fit each other."""


def _run(code: Callable[[], Any]) -> Any:
    """What the author's code returns, in the form in which it would come back from a store."""
    try:
        # Here and now, whatever scheduler is the default: small as it is, it goes to no cluster.
        return carried(compute(code(), scheduler="synchronous")[0])  # type: ignore[no-untyped-call]
    except (Exception, SystemExit) as error:
        raise _Raised(_said(error)) from error


def _each(
    function: Callable[[Any, Any], Any], a: tuple[Data, ...], b: tuple[Data, ...]
) -> tuple[Data, ...]:
    return tuple(function(x, y) for x, y in zip(a, b, strict=True))


def _numbers(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The finite numbers in it; of other types whether there is anything."""
    if array.dtype.kind not in "biufc":
        return np.ones(array.size)
    finite: np.ndarray[Any, Any] = array[np.isfinite(array)]
    return finite


def _could_not(reason: str) -> str:
    return f"could not be tried on a sample: {reason}"


def _said(error: BaseException) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    if len(text) > _LONGEST_REASON:
        text = f"{text[:_LONGEST_REASON]}…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
