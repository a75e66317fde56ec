"""CLIP's vision transformer, by transformers."""

import transformers

from .pyramid import Model
from .record import as_saved, f64, write

WIDTH, HEADS, DEPTH, OUT, PATCH = 32, 2, 2, 8, 16


def features(backbone, images):
    tokens = backbone(images, interpolate_pos_encoding=True).last_hidden_state
    h, w = (side // PATCH for side in images.shape[-2:])
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (h, w))


def main():
    for activation in ["quick_gelu", "gelu"]:
        with f64():
            config = transformers.CLIPVisionConfig(
                hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=DEPTH,
                num_attention_heads=HEADS, image_size=64, patch_size=PATCH, hidden_act=activation)
            model = Model(transformers.CLIPVisionModel(config), features, WIDTH, OUT)
            # The last norm is the class token's.
            saved = {k: v for k, v in as_saved(model.backbone).items() if "post_layernorm" not in k}
            saved |= model.pyramid.state_dict(keep_vars=True)
            settings = (f'kind = "vit"\nname = "clip_vit_b16"\nwidth = {WIDTH}\nheads = {HEADS}\n'
                        f'depth = {DEPTH}\nposition_grid = 4\nactivation = "{activation}"\n'
                        f'pyramid_width = {OUT}\n')
            write(f"clip_huggingface_{activation}", settings, model, [(64, 64), (80, 112), (90, 119)],
                  lambda model, images: model(images), saved=saved,
                  of=f"transformers {transformers.__version__}, CLIPVisionModel")
