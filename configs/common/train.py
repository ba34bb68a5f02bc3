"""What `lazyconfig_train_net.py` reads from `train`."""

import torch

train = dict(
    output_dir="output/unnamed",
    # A new training in a folder with an earlier one's files is refused; True moves them into a
    # sub-folder of it.
    overwrite=False,
    # --resume goes on from the newest checkpoint that is whole; False ends the run where that is
    # not the newest one.
    resume_from_older=True,
    # A checkpoint of the whole detector to start from, or to evaluate with --eval-only.
    init_checkpoint="",
    # fnmatch patterns of parameter names in which that checkpoint and the model may differ.
    allow_missing=[],
    allow_unexpected=[],
    # What parts of a new model take from files: see mimdet.checkpoint.start.StartingWeights.
    starting_weights=[],
    max_iter=90000,
    # Mixed precision: "float16" (with a scaled loss; on CUDA only), "bfloat16", or "auto": bfloat16
    # where the card has it, else float16, with a compression of gradients (ddp) in the same type.
    # eval: evaluations too. bfloat16 changed the AP of a toy detector by less than 0.2 (boxes 63.56
    # to 63.72, masks 66.21 to 66.14; 100 images, on a CPU).
    amp=dict(enabled=False, dtype="auto", eval=False),
    # Products of float32 matrices: "highest"; "high" takes TF32, which is faster on cards that have
    # it and keeps 10 bits of 23, "medium" may take bfloat16. "" leaves torch's, "highest".
    float32_precision="",
    # "blocks": torch.compile for the transformer blocks, which takes a minute at the start. Other
    # parts, and an evaluation by --eval-only, run as they are.
    compile="off",
    # Pieces in which a batch passes through the model, to save memory. The batch size, and with it
    # the learning rate and the schedule, is that of the loader all the same.
    accumulation_steps=1,
    clip_grad=dict(max_norm=None),  # largest norm of all gradients together
    ema=dict(decay=None),  # such as 0.9999: average the weights, evaluate and save the average
    # Which weights of a checkpoint --eval-only and the tools take: "ema", its average, or "raw";
    # None takes the average where there is one, and the log says so.
    eval_weights=None,
    # At a loss or gradients of infinity or NaN: "stop"; "skip" leaves the batch out; "rewind" goes
    # back to the last checkpoint and on with the images behind those of that batch. The last two
    # wait for the device in every iteration.
    nonfinite="stop",
    nonfinite_max=10,  # batches of the whole run that may fail before it stops all the same
    # The compressions exchange gradients in the type of the forward pass, which must be the same:
    # fp16 with amp.dtype "float16", bf16 with "bfloat16".
    ddp=dict(
        broadcast_buffers=False,
        gradient_as_bucket_view=True,  # gradients lie where they are exchanged, not twice
        find_unused_parameters=False,
        fp16_compression=False,
        bf16_compression=False,
    ),
    checkpointer=dict(period=5000, max_to_keep=100),
    eval_period=5000,
    # The result of evaluations, such as "bbox/AP", by which model_best.pth is kept.
    best_metric=None,
    early_stop=dict(patience=None),  # evaluations without a better one after which the run ends
    # Share of the tokens that MIMDet sees in evaluations; None for that of the model. A ratio of
    # the model on the command line of --eval-only comes first.
    eval_sample_ratio=None,
    log_period=20,
    report=True,  # make report.html, a page about the run, at its end
    device="cuda" if torch.cuda.is_available() else "cpu",
    seed=-1,
)
