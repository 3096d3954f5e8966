"""The same figures as torchmetrics, which is slow to import and is therefore asked here only."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_average_precision, binary_f1_score
from torchmetrics.functional.retrieval import (
    retrieval_average_precision,
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from cmcr.evaluation.detection import average_precision, max_f1
from cmcr.evaluation.metrics import PerQuery, positive_ranks, retrieval_scores

ORACLES = {
    "R@1": lambda s, r: retrieval_hit_rate(s, r, top_k=1),
    "R@5": lambda s, r: retrieval_hit_rate(s, r, top_k=5),
    "true_recall@1": lambda s, r: retrieval_recall(s, r, top_k=1),
    "true_recall@5": lambda s, r: retrieval_recall(s, r, top_k=5),
    "mAP": retrieval_average_precision,
    "MRR": retrieval_reciprocal_rank,
    "nDCG@10": lambda s, r: retrieval_normalized_dcg(s, r, top_k=10),
}


@pytest.fixture(scope="module")
def retrieval():
    """Similarities, relevances and our scores of 40 queries, without ties."""
    rng = np.random.default_rng(11)
    queries, corpus = (rng.normal(size=(n, 6)).astype(np.float32) for n in (40, 30))
    relevance = rng.random((40, 30)) < 0.2
    relevance[:, 0] |= ~relevance.any(axis=1)
    ranks = positive_ranks(queries, corpus, PerQuery.several([np.flatnonzero(row) for row in relevance]))
    similarity = torch.from_numpy(queries @ corpus.T)
    # torchmetrics 1.9 leaves positives out of AP and MRR whose score is not above 0, as cosines may be: lift them all
    similarity = similarity - similarity.min() + 1
    return similarity, torch.from_numpy(relevance), retrieval_scores("task", ranks, tops=(1, 5))


@pytest.mark.parametrize("name", ORACLES)
def test_retrieval_equals_torchmetrics(retrieval, name):
    similarity, relevance, scores = retrieval
    expected = [float(ORACLES[name](s, r)) for s, r in zip(similarity, relevance, strict=True)]
    np.testing.assert_allclose(scores[f"task/{name}"], expected, atol=3e-7)  # torchmetrics computes in float32


@pytest.mark.parametrize("decimals", [1, 6])
def test_detection_equals_torchmetrics(decimals):
    rng = np.random.default_rng(decimals)
    scores, labels = np.round(rng.random(300), decimals), rng.random(300) < 0.3
    s, y = torch.from_numpy(scores), torch.from_numpy(labels.astype(np.int64))
    assert average_precision(scores, labels) == pytest.approx(float(binary_average_precision(s, y)), abs=3e-7)
    f1, threshold = max_f1(scores, labels)
    # torchmetrics claims what scores more than the threshold
    below = np.nextafter(threshold, -1)
    assert f1 == pytest.approx(float(binary_f1_score(s, y, threshold=below)), abs=3e-7)
