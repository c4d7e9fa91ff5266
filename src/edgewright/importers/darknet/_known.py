"""Options that Darknet knows but that say nothing about inference: they pass without a warning.

Source: AlexeyAB/darknet, parser.c, and pjreddie/darknet, parser.c.
"""

from __future__ import annotations

_NET = """
batch subdivisions track augment_speed sequential_subdivisions init_sequential_subdivisions try_fix_nan loss_scale
dynamic_minibatch optimized_memory workspace_size_limit_MB adam B1 B2 eps max_crop min_crop flip blur gaussian_noise mixup
cutmix mosaic mosaic_bound contrastive contrastive_jit_flip contrastive_color unsupervised label_smooth_eps resize_step
attention adversarial_lr max_chart_loss angle aspect saturation exposure hue learning_rate learning_rate_min
sgdr_cycle sgdr_mult use_cuda_graph momentum decay burn_in power policy step scale steps scales seq_scales gamma
max_batches letter_box channels inputs time_steps
badlabels_rejection_percentage badlabels_reject_threshold num_sigmas_reject_badlabels ema_alpha
equidistant_point show_receptive_field weights_reject_freq min_ratio max_ratio center clip random
"""
_LAYER = """
clip stopbackward onlyforward dont_update burnin_update train_only_bn learning_rate learning_rate_scale lr dontsave
keep_delta_gpu numload noloss smooth grad_centr bflops scale_wh stopbackward_scale nan dot stream wait_stream
"""
_SECTIONS = {
    "convolutional": "assisted_excitation bin_output sway rotate stretch stretch_sway angle reverse coordconv",
    "crop": "flip angle saturation exposure shift",
    "dropout": "probability dropblock dropblock_size_rel dropblock_size_abs dropblock_size",
    "cost": "type scale ratio SSE thresh noobj",
    "softmax": "tree_file hierarchy",
    "route": "probability",
    "implicit": "mean std",
    "yolo": """
        jitter resize random truth_thresh ignore_thresh iou_normalizer obj_normalizer cls_normalizer delta_normalizer
        max_delta iou_loss iou_thresh_kind iou_thresh uc_normalizer bias_match focal_loss label_smooth_eps
        objectness_smooth max max_boxes map counters_per_class track_history_size sim_thresh dets_for_track dets_for_show
        track_ciou_norm embedding_layer show_details rescore absolute thresh classfix background log
        reorg object_scale noobject_scale mask_scale class_scale coord_scale
        forced softmax tree letter_box nms_kind beta_nms yolo_point
    """,
    "contrastive": """
        classes temperature yolo_layer jitter random truth_thresh ignore_thresh steps cls_normalizer max_delta
        contrastive_neg_max max_boxes
    """,
    "shortcut": "assisted_excitation",
    "conv_lstm": "shortcut time_normalizer",
}
_SAME = {"gaussian_yolo": "yolo", "region": "yolo", "detection": "yolo", "deconvolutional": "convolutional",
         "crnn": "convolutional"}  # fmt: skip


def ignored(kind: str) -> set[str]:
    """Options of a layer of `kind` (or "net") that matter in training only."""
    if kind == "net":
        return set(_NET.split())
    return {*_LAYER.split(), *_SECTIONS.get(_SAME.get(kind, kind), "").split()}
