"""Whether random rows that should be independent remember each other, at any distance."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

Rows = npt.NDArray[np.float64]


def repeated_rows(rows: Rows) -> float:
    """Return 0 if two of (n, d) continuous rows are equal, anywhere apart, and 1 otherwise.

    Independent rows are never equal, so a repetition is certain proof: of a small pool of rows, of a short
    seed, of a generator that was copied or put back. Rows without any variation are another test's.
    """
    seen = np.unique(np.round(rows, 9), axis=0)
    return 0.0 if len(seen) < len(rows) and rows.std() > 0 else 1.0


def most_remembered(rows: Rows) -> float:
    """Return the p-value of the largest correlation of (n, d) standardised rows with rows at any lag."""
    return _largest(rows, rows, skip_zero=True)


def most_shared(first: Rows, second: Rows) -> float:
    """Return the p-value of the largest correlation of two streams of (n, d) rows, shifted by any lag."""
    return _largest(first, second, skip_zero=False)


def _largest(first: Rows, second: Rows, *, skip_zero: bool) -> float:
    """Sums of inner products at every lag, by fast Fourier transforms over the rows' order."""
    count, width = first.shape
    size = 2 * count
    spectra = np.fft.rfft(first, size, axis=0).conj() * np.fft.rfft(second, size, axis=0)
    sums = np.fft.irfft(spectra.sum(1), size)
    lags = np.arange(1 if skip_zero else 0, count // 2)
    sums = np.concatenate([sums[lags], [] if skip_zero else sums[size - lags[1:]]])
    overlaps = np.concatenate([count - lags, [] if skip_zero else count - lags[1:]])
    z = np.abs(sums) / np.sqrt(overlaps * width)
    return float(len(z) * 2 * stats.norm.sf(z.max()))
