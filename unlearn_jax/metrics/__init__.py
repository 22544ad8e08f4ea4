"""Metrics: pure functions of arrays with a leading member axis M; no model, no I/O.

errors            absolute and class errors, accuracy, utility, forgetting, the retrain ceiling
pairs             Forgetting against the M_Rs of other seeds, without JAX
confidence        scores of single samples that attacks use: losses, confidences, entropies
attacks           membership inference on losses: threshold and logistic regression
likelihood_ratio  U-LiRA: decides whether a model forgot a sample or never saw it
challenge         forgetting quality and score of the NeurIPS 2023 unlearning challenge
distributions     Wasserstein-1, Jensen-Shannon, KLoM between outputs of two populations
confusion         interclass confusion test, for classes and label bins
injection         feature injection test, for linear and logistic models and for images
relearn           relearn time and AIN
layers            distance of two models' weights, layer by layer
shapes            the checks that all metrics share
"""
