"""Small networks of the package transformers, by class: settings of their configuration, and what goes in."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Entry(NamedTuple):
    """One network."""

    kind: str  # the model's class
    config: str  # its configuration's class
    settings: dict[str, Any]
    shape: tuple[int, ...]  # integers (tokens) where it has two sizes and the network reads text


IMAGE, VIDEO, TEXT, SOUND = (1, 3, 64, 64), (1, 4, 3, 64, 64), (1, 12), (1, 1600)
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
PATCHES = {**SIZES, "image_size": 64, "patch_size": 16}
TOKENS = {**SIZES, "vocab_size": 100, "max_position_embeddings": 64}
DECODER = {**TOKENS, "use_cache": False}
WAVES = {
    **SIZES, "conv_dim": [16, 16, 16], "conv_stride": [5, 2, 2], "conv_kernel": [10, 3, 3], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 16,
}  # fmt: skip
WINDOWS = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 2, 1]}
BOTTLENECKS = {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1]}
PYRAMID = {"hidden_sizes": [16, 32, 40, 64], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 5, 8]}
COMPOUND = {"width_coefficient": 0.5, "depth_coefficient": 0.4, "hidden_dim": 640}
MOBILE = {"image_size": 64, "hidden_sizes": [32, 40, 48], "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 96]}
SERIES = {
    "num_input_channels": 2, "context_length": 32, "patch_length": 8, "patch_stride": 8, "prediction_length": 8,
}  # fmt: skip

NETWORKS = [
    Entry("ViTForImageClassification", "ViTConfig", PATCHES, IMAGE),
    Entry("DeiTForImageClassification", "DeiTConfig", PATCHES, IMAGE),
    Entry("BeitForImageClassification", "BeitConfig", PATCHES, IMAGE),
    Entry("Dinov2ForImageClassification", "Dinov2Config", PATCHES, IMAGE),
    Entry("DINOv3ViTModel", "DINOv3ViTConfig", PATCHES, IMAGE),
    Entry("YolosForObjectDetection", "YolosConfig", {**PATCHES, "image_size": [64, 64], "num_detection_tokens": 10}, IMAGE),
    Entry("SwinForImageClassification", "SwinConfig", WINDOWS, IMAGE),
    Entry("Swinv2ForImageClassification", "Swinv2Config", WINDOWS, IMAGE),
    Entry("Swin2SRForImageSuperResolution", "Swin2SRConfig",
          {**WINDOWS, "image_size": 32, "embed_dim": 24, "num_heads": [2, 2], "upscale": 2}, (1, 3, 32, 32)),
    Entry("ConvNextForImageClassification", "ConvNextConfig", STAGES, IMAGE),
    Entry("ConvNextV2ForImageClassification", "ConvNextV2Config", STAGES, IMAGE),
    Entry("PoolFormerForImageClassification", "PoolFormerConfig", {**STAGES, "depths": [1, 1, 1, 1]}, IMAGE),
    Entry("ResNetForImageClassification", "ResNetConfig", BOTTLENECKS, IMAGE),
    Entry("RegNetForImageClassification", "RegNetConfig", {**BOTTLENECKS, "groups_width": 8}, IMAGE),
    Entry("BitForImageClassification", "BitConfig", {**BOTTLENECKS, "embedding_size": 32, "num_groups": 8}, IMAGE),
    Entry("PvtV2ForImageClassification", "PvtV2Config", {**PYRAMID, "image_size": 64}, IMAGE),
    Entry("PvtForImageClassification", "PvtConfig", {**PYRAMID, "image_size": 64}, IMAGE),
    Entry("SegformerForSemanticSegmentation", "SegformerConfig", {**PYRAMID, "decoder_hidden_size": 32}, IMAGE),
    Entry("GLPNForDepthEstimation", "GLPNConfig", {**PYRAMID, "decoder_hidden_size": 16}, IMAGE),
    Entry("MobileNetV1ForImageClassification", "MobileNetV1Config", {"depth_multiplier": 0.25}, IMAGE),
    Entry("MobileNetV2ForImageClassification", "MobileNetV2Config", {"depth_multiplier": 0.35}, IMAGE),
    Entry("MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", {"depth_multiplier": 0.35}, IMAGE),
    Entry("EfficientNetForImageClassification", "EfficientNetConfig", COMPOUND, IMAGE),
    Entry("MobileViTForImageClassification", "MobileViTConfig", MOBILE, IMAGE),
    Entry("MobileViTForSemanticSegmentation", "MobileViTConfig", MOBILE, IMAGE),
    Entry("MobileViTV2ForImageClassification", "MobileViTV2Config", {"image_size": 64, "width_multiplier": 0.25}, IMAGE),
    Entry("LevitForImageClassification", "LevitConfig",
          {"image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
           "key_dim": [8, 8, 8]}, IMAGE),
    Entry("FocalNetForImageClassification", "FocalNetConfig",
          {"image_size": 64, "embed_dim": 16, "depths": [1, 1, 1, 1], "focal_levels": [2] * 4, "focal_windows": [3] * 4}, IMAGE),
    Entry("VideoMAEForVideoClassification", "VideoMAEConfig", {**PATCHES, "num_frames": 4, "tubelet_size": 2}, VIDEO),
    Entry("TimesformerForVideoClassification", "TimesformerConfig", {**PATCHES, "num_frames": 4}, VIDEO),
    Entry("CLIPVisionModelWithProjection", "CLIPVisionConfig", {**PATCHES, "projection_dim": 24}, IMAGE),
    Entry("SiglipVisionModel", "SiglipVisionConfig", PATCHES, IMAGE),
    Entry("BertForSequenceClassification", "BertConfig", TOKENS, TEXT),
    Entry("RobertaForSequenceClassification", "RobertaConfig", TOKENS, TEXT),
    Entry("DistilBertForSequenceClassification", "DistilBertConfig",
          {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64}, TEXT),
    Entry("AlbertForSequenceClassification", "AlbertConfig", {**TOKENS, "embedding_size": 16}, TEXT),
    Entry("ElectraForSequenceClassification", "ElectraConfig", {**TOKENS, "embedding_size": 16}, TEXT),
    Entry("MPNetForSequenceClassification", "MPNetConfig", TOKENS, TEXT),
    Entry("RoFormerForSequenceClassification", "RoFormerConfig", TOKENS, TEXT),
    Entry("FNetForSequenceClassification", "FNetConfig", TOKENS, TEXT),
    Entry("DebertaForSequenceClassification", "DebertaConfig", TOKENS, TEXT),
    Entry("DebertaV2ForSequenceClassification", "DebertaV2Config", TOKENS, TEXT),
    Entry("ConvBertForSequenceClassification", "ConvBertConfig", {**TOKENS, "embedding_size": 32}, TEXT),
    Entry("SqueezeBertForSequenceClassification", "SqueezeBertConfig",
          {**TOKENS, "embedding_size": 32, **{f"{part}_groups": 2 for part in ("q", "k", "v", "intermediate", "output")}}, TEXT),
    Entry("MobileBertForSequenceClassification", "MobileBertConfig",
          {**TOKENS, "embedding_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 2}, TEXT),
    Entry("GPT2Model", "GPT2Config",
          {"vocab_size": 100, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "use_cache": False}, TEXT),
    Entry("OPTModel", "OPTConfig",
          {"vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "ffn_dim": 64, "num_attention_heads": 4,
           "max_position_embeddings": 64, "word_embed_proj_dim": 32, "use_cache": False}, TEXT),
    Entry("LlamaModel", "LlamaConfig", {**DECODER, "num_key_value_heads": 2}, TEXT),
    Entry("LlamaForCausalLM", "LlamaConfig", {**DECODER, "num_key_value_heads": 2}, TEXT),
    Entry("LlamaForSequenceClassification", "LlamaConfig", {**DECODER, "num_key_value_heads": 2, "pad_token_id": 0}, TEXT),
    Entry("Qwen2Model", "Qwen2Config", {**DECODER, "num_key_value_heads": 2}, TEXT),
    Entry("GPTNeoXModel", "GPTNeoXConfig", DECODER, TEXT),
    Entry("PhiModel", "PhiConfig", DECODER, TEXT),
    Entry("T5EncoderModel", "T5Config",
          {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}, TEXT),
    Entry("CLIPTextModelWithProjection", "CLIPTextConfig", {**TOKENS, "projection_dim": 24, "eos_token_id": 99}, TEXT),
    Entry("Wav2Vec2ForSequenceClassification", "Wav2Vec2Config", WAVES, SOUND),
    Entry("HubertForSequenceClassification", "HubertConfig", WAVES, SOUND),
    Entry("WavLMForSequenceClassification", "WavLMConfig", WAVES, SOUND),
    Entry("SEWForSequenceClassification", "SEWConfig", WAVES, SOUND),
    Entry("Wav2Vec2ConformerForSequenceClassification", "Wav2Vec2ConformerConfig",
          {**WAVES, "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 7}, SOUND),
    Entry("Wav2Vec2BertForSequenceClassification", "Wav2Vec2BertConfig",
          {**SIZES, "feature_projection_input_dim": 20, "conv_depthwise_kernel_size": 7, "classifier_proj_size": 16},
          (1, 24, 20)),
    Entry("ASTForAudioClassification", "ASTConfig", {**SIZES, "max_length": 64, "num_mel_bins": 32}, (1, 64, 32)),
    Entry("WhisperForAudioClassification", "WhisperConfig",
          {"d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 64, "num_mel_bins": 20,
           "max_source_positions": 20, "classifier_proj_size": 16}, (1, 20, 40)),
    Entry("PatchTSTForPrediction", "PatchTSTConfig",
          {**SERIES, "d_model": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64, "norm_type": "layernorm"},
          (1, 32, 2)),
    Entry("PatchTSMixerForPrediction", "PatchTSMixerConfig", {**SERIES, "d_model": 16, "num_layers": 2}, (1, 32, 2)),
]  # fmt: skip

ANSWERS = (
    "logits", "predicted_depth", "reconstruction", "prediction_outputs", "image_embeds", "text_embeds", "last_hidden_state",
)  # fmt: skip


class First(torch.nn.Module):
    """A network of which the first tensor of its answer counts."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer = self.network(x)
        return next(answer[name] for name in ANSWERS if getattr(answer, name, None) is not None)
