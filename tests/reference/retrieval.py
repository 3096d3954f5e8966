"""Retrieval metrics from their definitions: a query's items in one linear order, one item at a time in plain Python."""

import math
from itertools import groupby, permutations, product


def hit(order, k):
    """1 if any of the first k is a positive; `order` is the relevance, 0 or 1, from first to last."""
    return float(any(order[:k]))


def true_recall(order, k):
    """Positives among the first k, over all positives."""
    return sum(order[:k]) / sum(order)


def average_precision(order):
    """sum_i precision(i) rel(i) / m."""
    return sum(sum(order[: i + 1]) / (i + 1) for i, relevant in enumerate(order) if relevant) / sum(order)


def reciprocal_rank(order):
    """1 / position of the first positive."""
    return 1 / (1 + list(order).index(1))


def discounted_gain(order, k):
    """DCG@k / DCG@k of the best order, DCG@k = sum_{i <= k} rel(i) / log2(i + 1)."""

    def gain(relevances):
        return sum(relevant / math.log2(i + 2) for i, relevant in enumerate(relevances[:k]))

    return gain(order) / gain(sorted(order, reverse=True))


def pessimistic_order(similarity, relevance):
    """Relevances by falling similarity, among equals those that are no positives first."""
    ranked = sorted(zip(similarity, relevance, strict=True), key=lambda item: (-item[0], item[1]))
    return [relevant for _, relevant in ranked]


def every_order(similarity, relevance):
    """Relevances in every linear order that the similarities allow: all ways of breaking the ties."""
    ranked = sorted(zip(similarity, relevance, strict=True), key=lambda item: -item[0])
    tied = [[relevant for _, relevant in group] for _, group in groupby(ranked, key=lambda item: item[0])]
    for choice in product(*(set(permutations(group)) for group in tied)):
        yield [relevant for group in choice for relevant in group]


def positive_ranks(similarity, relevance):
    """Places of the positives in the pessimistic order, from 1."""
    return [place + 1 for place, relevant in enumerate(pessimistic_order(similarity, relevance)) if relevant]
