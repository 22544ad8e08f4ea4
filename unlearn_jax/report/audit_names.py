"""What the audits' metrics are called in the report, and what each says."""

import re

# Pattern of the name: (header, definition, decimals, percent). \1 stands for the first group.
AUDIT_METRICS: dict[str, tuple[str, str, int, bool]] = {
    r"mia_auc": ("MIA AUC", "chance that a training sample of D_f has a lower loss than a test "
                 "sample of its kind; 0.5: an attack on the loss learns nothing. M_R's value is "
                 "what is reached without any memory of D_f", 3, False),
    r"mia_accuracy": ("MIA accuracy (%)", "share of samples that the best threshold on the loss "
                      "tells right, cross-validated, those of D_f and of the test set weighing the "
                      "same", 1, True),
    r"mia_tpr@(.+)": (r"MIA TPR@\1 (%)", r"share of D_f's training samples recognised where at "
                      r"most a share of \1 of the test samples is taken for D_f", 1, True),
    r"mia_logistic_auc": ("logistic MIA AUC", "the same attack by logistic regression, AUC over "
                          "held-out folds", 3, False),
    r"mia_logistic_accuracy": ("logistic MIA accuracy (%)", "accuracy of logistic regression on "
                               "held-out folds", 1, True),
    r"mia_logistic_tpr@(.+)": (r"logistic MIA TPR@\1 (%)", "TPR of logistic regression", 1, True),
    r"population:lira_accuracy": ("U-LiRA (%)", "share of models that a likelihood-ratio attack "
                                  "tells right, half of the unlearned from the retrained of the "
                                  "other seeds, mean over D_f and over random halves; 50: they "
                                  "cannot be told apart. In M_R's row the attack is on M_Rs of "
                                  "some seeds against those of others", 1, True),
    r"population:lira_accuracy_worst": ("U-LiRA, largest (%)", "the largest of the same values of "
                                        "single samples, mean over random halves. A maximum of "
                                        "many noisy values is far above 50 by chance alone, the "
                                        "more so the fewer the models: to be read beside M_R's, "
                                        "never by itself", 1, True),
    r"population:challenge_quality": ("forgetting quality", "of the 2023 challenge: mean of "
                                      "2 / 2^n over D_f, n from the ε of the best attack; higher "
                                      "is better, and the perfect value stands in M_R's row", 4,
                                      False),
    r"population:challenge_quality_(low|high)": (r"quality, \1", r"\1 end of its 95 % interval "
                                                 "over models (bootstrap)", 4, False),
    r"population:challenge_quality_halves": ("quality, M_R against M_R", "forgetting quality of "
                                             "one half of the retrained models against the other",
                                             4, False),
    r"population:challenge_quality_perfect": ("quality, perfect", "what unlearned models get that "
                                              "are as good as retrained ones, for this number of "
                                              "models", 4, False),
    r"population:challenge_epsilon_median": ("ε, median (nats)", "of the best attack, over D_f", 2,
                                             False),
    r"population:challenge_score": ("challenge score", "quality × utility ratios on D_r and test; "
                                    "0 where unlearning takes over 20 % of retraining's time", 4,
                                    False),
    r"population:challenge_accepted": ("within 20 % of the time", "1: yes", 0, False),
    r"w1_forget": ("W1 on D_f", "Wasserstein-1 distance between the outputs on D_f of the model "
                   "and of M_R with the same seed, which grew from the same weights. Of M_R: with "
                   "that of another seed, so that models may be nearer to M_R than it is without "
                   "having forgotten", 3, False),
    r"population:w1": ("W1 over models", "Wasserstein-1 distance between what half of the models "
                       "and the M_Rs of the other seeds say of a sample, mean over D_f and over "
                       "random halves (of M_R: M_Rs of some seeds and of others). The fewer the "
                       "models, the larger: to be read beside M_R's", 3, False),
    r"population:js": ("JS (nats)", "Jensen–Shannon divergence of the same", 3, False),
    r"population:klom": ("KLoM (nats)", "KL divergence of margins, the same", 3, False),
    r"confusion_(test|forget)": (r"confusion \1", "share of the two groups' samples that are taken "
                                 "for the other group; for regression, predicted within its "
                                 "range", 3, False),
    r"confusion_nearer_(test|forget)": (r"nearer to the wrong group, \1",
                                        "share of the two groups' samples whose predicted label "
                                        "is nearer to the other group's range than to their own. A "
                                        "model that was taught both answers with something "
                                        "between them, which may lie in neither range", 3, False),
    r"injection_effect": ("effect of the patch", "change of the outputs on test images when the "
                          "injected patch is stamped on them", 3, False),
    r"ain": ("AIN", "anamnesis index: epochs to relearn D_f, over those of M_R; 1: like a model "
             "that never saw it, near 0: it had only hidden it. “–” where it is not known for "
             "every seed, as some loss did not come down in the epochs made, or neither the model "
             "nor M_R had anything to relearn, their losses being at M_O's from the start: then "
             "the bounds beside it say what is known", 2, False),
    r"ain_low": ("AIN, at least", "lower bound of the anamnesis index, a loss that did not come "
                 "down in the epochs made counting as one that needs one epoch more; 0 where that "
                 "is M_R's, and where neither had anything to relearn", 2, False),
    r"ain_high": ("AIN, at most", "upper bound of the anamnesis index; infinite where the model's "
                  "loss did not come down in the epochs made, or M_R had nothing to relearn", 2,
                  False),
    r"relearn_epochs": ("epochs to relearn", "epochs of training on D_f until the loss on its "
                        "training samples is within 5 % of M_O's. Where that took longer than the "
                        "epochs made in some seeds, the cell says in how many; there is no mean",
                        1, False),
    r"relearn_censored": ("not relearned (% of seeds)", "share of seeds whose loss did not come "
                          "down to M_O's in the epochs made", 0, True),
}


def is_audit(name: str) -> bool:
    """Whether an audit made the metric."""
    return any(re.fullmatch(pattern, name) for pattern in AUDIT_METRICS)
