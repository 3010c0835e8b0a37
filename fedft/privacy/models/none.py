"""A run without differential privacy."""

from __future__ import annotations

from fedft.privacy.models.interface import PrivacyModel
from fedft.statements import PrivacyUnit

NONE = PrivacyModel(
    unit=PrivacyUnit.EXAMPLE,
    private=False,
    charged_at_client=False,
    forbids=lambda _config: (),
    client="fedft.client.worker.local_privacy:NO_PRIVACY",
    server="fedft.coordinator.central_mechanism:ExactMean",
)
