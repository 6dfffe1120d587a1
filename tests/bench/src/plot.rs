//! A plot of the frames per second at 64 bytes, as SVG: for each scenario and number
//! of flows a bar per device.

use std::fmt::Write;

use crate::dut::Kind;
use crate::report::{Place, Report};

/// Sizes that are plotted.
const SIZES: &str = "64";

const WIDTH: f64 = 960.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 50.0;
const BAR: f64 = 10.0;
const GAP: f64 = 10.0;

const fn color(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "#1b7f5c",
        Kind::Ovs => "#c0662b",
        Kind::Testpmd => "#9aa3ad",
    }
}

const fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "Sluice",
        Kind::Ovs => "OVS-DPDK",
        Kind::Testpmd => "testpmd io (no work)",
    }
}

/// Draws the plot.
pub(crate) fn draw(report: &Report) -> String {
    let places: Vec<Place> = report
        .places()
        .into_iter()
        .filter(|place| place.sizes == SIZES)
        .collect();
    let row = BAR * Kind::ALL.len() as f64 + GAP;
    let height = TOP + row * places.len() as f64 + 30.0;
    let most = places
        .iter()
        .flat_map(|place| rates(report, place))
        .flatten()
        .fold(1.0, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    legend(&mut svg);
    for (number, place) in places.iter().enumerate() {
        let top = TOP + row * number as f64;
        let middle = top + row / 2.0;
        let name = format!("{}, {} flows", place.scenario, place.flows);
        text(&mut svg, LEFT - 8.0, middle, "end", &name);
        for ((kind, rate), at) in Kind::ALL.into_iter().zip(rates(report, place)).zip(0u8..) {
            let Some(rate) = rate else {
                continue;
            };
            let (y, width) = (top + BAR * f64::from(at), rate * scale);
            let fill = color(kind);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BAR}\" \
                 fill=\"{fill}\"/>"
            );
            let figure = format!("{rate:.1}");
            text(
                &mut svg,
                LEFT + width + 4.0,
                y + BAR - 1.0,
                "start",
                &figure,
            );
        }
    }
    svg + "</svg>\n"
}

/// Million frames per second of each device.
fn rates(report: &Report, place: &Place) -> [Option<f64>; 3] {
    let figures = report.figures(place);
    figures.map(|figures| Some(figures?.pps / 1e6))
}

fn legend(svg: &mut String) {
    let title = "Million frames per second, 64 bytes, both directions, one core";
    text(svg, LEFT, 18.0, "start", title);
    for (kind, at) in Kind::ALL.into_iter().zip(0u8..) {
        let x = LEFT + 170.0 * f64::from(at);
        let fill = color(kind);
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"28\" width=\"10\" height=\"10\" fill=\"{fill}\"/>"
        );
        text(svg, x + 15.0, 37.0, "start", label(kind));
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}
