// The 16 levels of NF4 (Dettmers et al. 2023, QLoRA, appendix E) and the midpoints between them.
#ifndef FEDFT_CODEBOOK_H
#define FEDFT_CODEBOOK_H

namespace {

alignas(64) constexpr float kCode[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

constexpr float mid(int i) { return (kCode[i] + kCode[i + 1]) / 2.0f; }

// The 16th entry is never looked up; it fills the vector register.
alignas(64) constexpr float kMid[16] = {mid(0), mid(1), mid(2),  mid(3),  mid(4),  mid(5),  mid(6),  mid(7),
                                        mid(8), mid(9), mid(10), mid(11), mid(12), mid(13), mid(14), 2.0f};

constexpr float kMinScale = 1e-38f;  // keeps the reciprocal of an all-zero block finite

}  // namespace

#endif
