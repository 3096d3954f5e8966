"""Localisation metrics from their definitions, one pixel at a time in plain Python."""

from itertools import pairwise


def consensus_map(boxes, height, width, agreement):
    """g(i) = min(sum_j b_j(i) / agreement, 1), b_j(i) = 1 if the centre of pixel i lies in box j."""
    consensus = []
    for row in range(height):
        y = (row + 0.5) / height
        votes = []
        for column in range(width):
            x = (column + 0.5) / width
            agreed = sum(x0 <= x < x1 and y0 <= y < y1 for x0, y0, x1, y1 in boxes)
            votes.append(min(agreed / agreement, 1.0))
        consensus.append(votes)
    return consensus


def consensus_iou(region, consensus):
    """sum_{i in A} g_i / (sum_i g_i + |A - G|)."""
    pixels = [(a, g) for rows in zip(region, consensus, strict=True) for a, g in zip(*rows, strict=True)]
    shared = sum(g for a, g in pixels if a)
    outside = sum(1 for a, g in pixels if a and g == 0)
    return shared / (sum(g for _, g in pixels) + outside)


def success_auc(ious):
    """Trapezoid rule over the share of items whose IoU reaches 0, 0.05, ..., 1."""
    curve = [sum(1 for iou in ious if iou >= step / 20) / len(ious) for step in range(21)]
    return sum((a + b) / 2 for a, b in pairwise(curve)) / 20
