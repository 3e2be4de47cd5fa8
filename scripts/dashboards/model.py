"""For whoever answers for the model: what it says, whether that has changed, and whether it is still right."""

from typing import Final

from panels import GATEWAY, Panel, Rows, quantile, rate

MODEL: Final[Rows] = {
    "Which versions": [
        Panel(
            "Answers by version",
            "Two versions without a canary are a fault.",
            {"version {{model_version}}": rate(f"{GATEWAY}outcomes_total", "model_version")},
            "stack",
            "reqps",
        ),
        Panel(
            "Versions that have answered",
            "Since the gateways' start, and where each comes from.",
            {"": f"max by (model_version, preset, config_sha256) ({GATEWAY}model_info)"},
            "table",
        ),
        Panel(
            "Loads",
            "Attempts of the model servers to load a version, by what came of them.",
            {"{{status}} {{model_path}}": "sum by (status, model_path) (:tensorflow:cc:saved_model:load_attempt_count)"},
        ),
    ],
    "What it says": [
        Panel(
            "Share of none",
            "Of the last day, and of the seven days before.",
            {"last day": "dermserve:outcomes_none:share1d", "seven days before": "dermserve:outcomes_none:share7d_before"},
            unit="percentunit",
        ),
        Panel(
            "Reasons of none",
            "Out of scope, or uncertain.",
            {"{{reason}}": rate(f"{GATEWAY}outcomes_total", "reason", 'label="none"')},
            "stack",
            "reqps",
        ),
        Panel(
            "Malignant-looking and rejected",
            "Share of a version's answers of a day: none, although the probability is over the threshold. Ceiling 2 %.",
            {
                "version {{model_version}}": f"sum by (model_version)"
                f" (increase({GATEWAY}malignant_looking_rejections_total[1d]))"
                f" / (sum by (model_version) (increase({GATEWAY}outcomes_total[1d])) > 0)"
            },
            unit="percentunit",
            limit=0.02,
        ),
        Panel(
            "Probability of malignant",
            "Deciles and median of what was answered.",
            {f"{share:.0%}": quantile(share, f"{GATEWAY}malignant_probability") for share in (0.1, 0.5, 0.9)},
        ),
        Panel(
            "None score",
            "Deciles and median of what was answered.",
            {f"{share:.0%}": quantile(share, f"{GATEWAY}none_score") for share in (0.1, 0.5, 0.9)},
        ),
        Panel(
            "Quality warnings of a day",
            "One kind rises: a camera has changed.",
            {"{{warning}}": f"sum by (warning) (increase({GATEWAY}quality_warnings_total[1d]))"},
            "bars",
        ),
    ],
    "Is it still shown what it was made for": [
        Panel(
            "Drift of a day",
            "Population stability index, and what chance alone exceeds in one of a hundred looks.",
            {
                "{{score}}, version {{model_version}}": "dermserve:drift_psi:1d",
                "noise of {{score}}, version {{model_version}}": "dermserve:drift_noise:1d",
            },
            width=12,
        ),
        Panel(
            "Share of each bin of the probability",
            "Answers of a day, and the version's reference. The lower edge of the bin is in the legend.",
            {
                "over {{above}}, reference": 'sort(dermserve:reference_share:max{score="malignant_probability"})',
                "over {{above}}, a day": 'dermserve:score_share:1d{score="malignant_probability"}',
            },
            "bars",
            "percentunit",
            12,
        ),
    ],
    "Is a known picture answered as it was": [
        Panel(
            "Golden picture",
            "Checks by what came of them.",
            {"{{result}}": rate(f"{GATEWAY}golden_checks_total", "result")},
            "stack",
            "reqps",
        ),
        Panel(
            "Age of the last right answer",
            "By gateway, in periods of its checks; from ten on nobody knows whether answers are right.",
            {
                "{{instance}}": f"(time() - ({GATEWAY}golden_last_ok_timestamp_seconds > 0))"
                f" / on (job, instance) ({GATEWAY}golden_period_seconds > 0)"
            },
            limit=10,
        ),
        Panel(
            "Distance from the recorded answer",
            "It changed although the version did not: another library or graph.",
            {"{{score}}": f"max by (score) ({GATEWAY}golden_difference)"},
        ),
    ],
    "The canary": [
        Panel(
            "Share",
            "Of the pictures that the canary answers, as it was set.",
            {"": f"max({GATEWAY}canary_share)"},
            unit="percentunit",
        ),
        Panel(
            "Answered, and what the canary would have",
            "Pictures of a day that it was shown beside the answer.",
            {
                "{{label}}, canary {{canary_label}}": "sum by (label, canary_label)"
                f" (increase({GATEWAY}shadow_outcomes_total[1d]))"
            },
            "bars",
        ),
        Panel(
            "Failures of the canary",
            "Pictures that the stable version answered instead, and comparisons that came to nothing.",
            {
                "answered by stable": f"sum(rate({GATEWAY}canary_fallbacks_total[$__rate_interval]))",
                "shadow {{result}}": rate(f"{GATEWAY}shadows_total", "result", 'result!="compared"'),
            },
            unit="reqps",
        ),
    ],
}
