"""The rule of the choice; how well it does is measured by benchmarks/choice.py."""

import pytest

from cmcr.connection.methods.auto import CLOSED, CONCEPTS, CONCEPTS_WITH_GAP, TRAINED, chosen_of


def evidence(concepts, with_gap, trained, instances):
    """What candidates are worth, and the trained projectors' instance evidence against 10 of the closed form."""
    worth = {CLOSED: 1.0, CONCEPTS: concepts, CONCEPTS_WITH_GAP: with_gap, TRAINED: trained}
    found = {each.name: {"worth": value, "instances": 10.0, "instances_beside": 10.0} for each, value in worth.items()}
    found[TRAINED.name]["instances"] = instances
    return found


@pytest.mark.parametrize(
    ("found", "chosen"),
    [
        (evidence(1.1, 1.1, 1.0, 10.0), CLOSED),
        (evidence(1.1, 1.1, 1.0, 10.4), CLOSED),
        (evidence(1.1, 1.1, 1.1, 10.6), TRAINED),
        (evidence(1.3, 1.1, 1.0, 10.6), CONCEPTS),
        (evidence(1.3, 1.1, 1.25, 10.6), TRAINED),
        (evidence(1.3, 1.27, 1.0, 10.0), CONCEPTS_WITH_GAP),
        (evidence(1.1, 1.3, 1.0, 10.0), CONCEPTS_WITH_GAP),
    ],
)
def test_the_closed_form_is_left_for_clear_evidence_only(found, chosen):
    assert chosen_of(found) == chosen.name
