"""AdamW and the cosine schedule (method.md section 3), written from the equations in plain numpy float64."""

import numpy as np


def cosine_rate(step, steps, rate):
    """lr_s = lr / 2 (1 + cos(pi s / S)), s = 0 at the first step."""
    return rate / 2 * (1 + np.cos(np.pi * step / steps))


def adamw_step(
    parameter, gradient, first, second, step, rate, weight_decay, beta_one=0.9, beta_two=0.999, epsilon=1e-8
):
    """w <- w - lr decay w - lr m^ / (sqrt(v^) + epsilon), step counted from 1; returns w, m, v."""
    first = beta_one * first + (1 - beta_one) * gradient
    second = beta_two * second + (1 - beta_two) * gradient**2
    corrected_first, corrected_second = first / (1 - beta_one**step), second / (1 - beta_two**step)
    parameter = parameter - rate * weight_decay * parameter
    parameter = parameter - rate * corrected_first / (np.sqrt(corrected_second) + epsilon)
    return parameter, first, second
