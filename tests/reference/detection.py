"""Detection metrics from their definitions, one threshold at a time in plain Python."""


def claims(scores, labels, threshold):
    """True and false positives, and positives missed, when everything that scores at least the threshold is claimed."""
    right = sum(1 for s, y in zip(scores, labels, strict=True) if s >= threshold and y)
    wrong = sum(1 for s, y in zip(scores, labels, strict=True) if s >= threshold and not y)
    return right, wrong, sum(1 for y in labels if y) - right


def average_precision(scores, labels):
    """sum_t (R_t - R_{t-1}) P_t, over the distinct scores from high to low."""
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        right, wrong, missed = claims(scores, labels, threshold)
        recall = right / (right + missed)
        area += (recall - before) * right / (right + wrong)
        before = recall
    return area


def max_f1(scores, labels):
    """max_t 2 TP / (2 TP + FP + FN)."""
    found = [claims(scores, labels, threshold) for threshold in scores]
    return max(2 * right / (2 * right + wrong + missed) for right, wrong, missed in found)
