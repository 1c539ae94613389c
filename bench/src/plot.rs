//! Plots as SVG: lines over a logarithmic axis, and bars; written by hand, because they are few and plain.

use std::fmt::Write as _;

/// A line: its name and its points, in the order of x.
pub(crate) type Line = (String, Vec<(f64, f64)>);

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 120.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Colours that colour-blind people can distinguish, in the order of use.
const COLOURS: [&str; 6] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#999999"];

/// Lines over a logarithmic x axis; y starts at 0.
pub(crate) fn lines(title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points).filter(|(_, y)| y.is_finite());
    let x_max = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let x_min = points().map(|(x, _)| *x).fold(x_max, f64::min).max(1e-9);
    let y_max = points().map(|(_, y)| *y).fold(0.0, f64::max).max(1e-9) * 1.05;
    let span = (x_max / x_min).ln().max(1e-9);
    let at_x = |x: f64| LEFT + (WIDTH - LEFT - RIGHT) * (x / x_min).ln() / span;
    let at_y = |y: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / y_max;
    let mut svg = frame(title, x_name, y_name, y_max, &at_y);
    let mut ticks: Vec<f64> = lines
        .first()
        .map(|(_, points)| points.iter().map(|(x, _)| *x).collect())
        .unwrap_or_default();
    ticks.dedup();
    for x in ticks {
        text(&mut svg, at_x(x), HEIGHT - BOTTOM + 18.0, "middle", &format!("{x}"));
    }
    for (index, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let path: Vec<String> = points
            .iter()
            .filter(|(_, y)| y.is_finite())
            .map(|(x, y)| format!("{:.1},{:.1}", at_x(*x), at_y(*y)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
        legend(&mut svg, index, colour, name);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Bars side by side: for each group, one bar for each name.
pub(crate) fn bars(
    title: &str,
    y_name: &str,
    names: &[String],
    groups: &[(String, Vec<f64>)],
) -> String {
    let all = groups.iter().flat_map(|(_, bars)| bars).copied().filter(|bar| bar.is_finite());
    let y_max = all.fold(0.0, f64::max).max(1e-9) * 1.05;
    let at_y = |y: f64| HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * y / y_max;
    let mut svg = frame(title, "", y_name, y_max, &at_y);
    let group_width = (WIDTH - LEFT - RIGHT) / count(groups.len().max(1));
    let bar_width = group_width * 0.8 / count(names.len().max(1));
    for (index, (group, bars)) in groups.iter().enumerate() {
        let start = LEFT + group_width * (count(index) + 0.1);
        text(&mut svg, start + group_width * 0.4, HEIGHT - BOTTOM + 18.0, "middle", group);
        for (bar, value) in bars.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
                start + bar_width * count(bar),
                at_y(*value),
                bar_width * 0.95,
                at_y(0.0) - at_y(*value),
                COLOURS[bar % COLOURS.len()]
            );
        }
    }
    for (index, name) in names.iter().enumerate() {
        legend(&mut svg, index, COLOURS[index % COLOURS.len()], name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn frame(title: &str, x_name: &str, y_name: &str, y_max: f64, at_y: &dyn Fn(f64) -> f64) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    text(&mut svg, WIDTH / 2.0, 20.0, "middle", title);
    text(&mut svg, f64::midpoint(WIDTH - RIGHT, LEFT), HEIGHT - 12.0, "middle", x_name);
    text(&mut svg, 8.0, TOP - 8.0, "start", y_name);
    let step = nice_step(y_max / 5.0);
    let mut y = 0.0;
    while y <= y_max {
        let height = at_y(y);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{height:.1}\" y2=\"{height:.1}\" stroke=\"#ddd\"/>",
            WIDTH - RIGHT
        );
        text(&mut svg, LEFT - 6.0, height + 4.0, "end", &crate::report::short(y));
        y += step;
    }
    svg
}

fn legend(svg: &mut String, index: usize, colour: &str, name: &str) {
    let y = TOP + 18.0 * count(index);
    let x = WIDTH - RIGHT + 12.0;
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>",
        y - 9.0
    );
    text(svg, x + 15.0, y, "start", name);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ =
        writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// The next of 1, 2, 5, 10, … from `least` on.
fn nice_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let found =
        [1.0, 2.0, 5.0, 10.0].into_iter().map(|part| part * power).find(|step| *step >= least);
    found.unwrap_or(least)
}

fn count(number: usize) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_hold_each_name_and_nothing_that_is_no_number() {
        let of = |name: &str, points: &[(f64, f64)]| (name.to_owned(), points.to_vec());
        let svg = lines(
            "t",
            "x",
            "y",
            &[of("a<b", &[(1.0, 2.0), (10.0, f64::NAN)]), of("c", &[(1.0, 3.0)])],
        );
        assert!(svg.contains("a&lt;b") && svg.contains(">c<") && !svg.contains("NaN"));
        let svg = bars("t", "y", &["a".to_owned()], &[("g".to_owned(), vec![1.0, f64::NAN])]);
        assert!(svg.contains(">g<") && !svg.contains("NaN") && svg.ends_with("</svg>\n"));
        let steps: Vec<f64> = [0.3, 1.0, 7.0].map(nice_step).to_vec();
        assert!(steps.iter().zip([0.5, 1.0, 10.0]).all(|(a, b)| (a - b).abs() < 1e-9));
    }
}
