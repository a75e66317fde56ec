"""ViTDet, by transformers."""

import transformers

from .pyramid import Model
from .record import as_saved, write

WIDTH, HEADS, DEPTH, OUT = 48, 3, 4, 12


def main():
    config = transformers.VitDetConfig(
        hidden_size=WIDTH, num_attention_heads=HEADS, num_hidden_layers=DEPTH, image_size=160,
        pretrain_image_size=64, window_size=4, window_block_indices=[0, 2],
        use_relative_position_embeddings=True, drop_path_rate=0.0, out_features=[f"stage{DEPTH}"])
    model = Model(
        transformers.VitDetBackbone(config),
        lambda backbone, images: backbone(images).feature_maps[-1], WIDTH, OUT)
    saved = {**as_saved(model.backbone), **model.pyramid.state_dict(keep_vars=True)}
    settings = (
        f'kind = "vit"\nwidth = {WIDTH}\nheads = {HEADS}\ndepth = {DEPTH}\nwindow = 4\n'
        f'global_blocks = [1, 3]\nposition_grid = 4\nrelative_grid = 10\npyramid_width = {OUT}\n')
    write("vitdet_huggingface", settings, model, [(160, 160), (96, 208), (100, 150)],
          lambda model, images: model(images), saved=saved,
          of=f"transformers {transformers.__version__}, VitDetBackbone")
