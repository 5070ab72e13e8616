//! Pictures as SVG, readable on light and on dark ground.

use std::fmt::Write;

use super::table::{Table, rounded};

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
/// Where the rows' titles end and the dots' axis begins.
const DOTS_LEFT: f64 = 330.0;
const ROW_HEIGHT: f64 = 26.0;
const HEADING_HEIGHT: f64 = 64.0;
const AXIS_HEIGHT: f64 = 56.0;
const LINES_HEIGHT: f64 = 300.0;
const LINES_LEFT: f64 = 90.0;
/// Where the lines' axis ends and their titles begin.
const LINES_RIGHT: f64 = 690.0;
const MARK: f64 = 5.0;

/// Those that begin with 1, 2 or 5.
const ROUND_VALUES: [f64; 21] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5,
    2e5, 5e5,
];

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.small { font-size: 11px }
.ground { fill: #ffffff }
.grid { stroke: #d0d7de; stroke-width: 1 }
.link { stroke: #8c959f; stroke-width: 2 }
.line { fill: none; stroke-width: 2 }
.c0 { fill: #0969da; stroke: #0969da }
.c1 { fill: #bc4c00; stroke: #bc4c00 }
.c2 { fill: #1a7f37; stroke: #1a7f37 }
.c3 { fill: #8250df; stroke: #8250df }
.c4 { fill: #6e7781; stroke: #6e7781 }
text.c0, text.c1, text.c2, text.c3, text.c4 { stroke: none }
polyline.c0, polyline.c1, polyline.c2, polyline.c3, polyline.c4 { fill: none }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.ground { fill: #0d1117 }
.grid { stroke: #30363d }
.link { stroke: #6e7681 }
.c0 { fill: #58a6ff; stroke: #58a6ff }
.c1 { fill: #f0883e; stroke: #f0883e }
.c2 { fill: #3fb950; stroke: #3fb950 }
.c3 { fill: #bc8cff; stroke: #bc8cff }
.c4 { fill: #9198a1; stroke: #9198a1 }
}
";

/// What most of these axes show.
pub const AXIS: &str = "virtual µs (thousand instructions of the whole machine), logarithmic";

/// A logarithmic axis.
pub struct LogAxis {
    pub from: f64,
    pub to: f64,
    pub title: String,
}

/// Rows of dots, one of each series, along one axis.
pub struct Dots {
    pub title: String,
    pub axis: LogAxis,
    pub series: Vec<String>,
    pub rows: Vec<(String, Vec<f64>)>,
}

/// Lines over two axes.
pub struct Line {
    pub title: String,
    pub across: LogAxis,
    pub up: LogAxis,
    /// What one value of the axis across is called.
    pub tick: fn(f64) -> String,
    pub series: Vec<Series>,
}

/// One of them.
pub struct Series {
    pub title: String,
    pub points: Vec<(f64, f64)>,
}

/// What a picture is made of.
pub enum Figure {
    Dots(Dots),
    Line(Line),
}

/// A picture as SVG: its figures, one below the other.
pub fn svg(figures: &[Figure]) -> String {
    let mut body = String::new();
    let mut height = 0.0;
    for figure in figures {
        height = match figure {
            Figure::Dots(dots) => dots.draw(&mut body, height + MARGIN),
            Figure::Line(line) => line.draw(&mut body, height + MARGIN),
        };
    }
    height += MARGIN;
    let titles: Vec<&str> = figures
        .iter()
        .map(|figure| match figure {
            Figure::Dots(dots) => dots.title.as_str(),
            Figure::Line(line) => line.title.as_str(),
        })
        .collect();
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n\
         <style>\n{STYLE}</style>\n<rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}</svg>\n",
        escaped(&titles.join("; ")),
    )
}

impl LogAxis {
    /// An axis that has room for all of `values`: from and to values that begin with 1, 2 or 5.
    pub fn around(values: impl Iterator<Item = f64> + Clone, title: &str) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        let ticks = ROUND_VALUES.iter().copied();
        Self {
            from: ticks.clone().rev().find(|tick| *tick <= least).unwrap_or(ROUND_VALUES[0]),
            to: ticks.clone().find(|tick| *tick >= most).unwrap_or(most),
            title: title.to_owned(),
        }
    }

    /// Where a value lies, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        (value.clamp(self.from, self.to) / self.from).ln() / (self.to / self.from).ln()
    }

    /// The round values on it.
    fn decimal_ticks(&self) -> Vec<f64> {
        let all = ROUND_VALUES.iter().copied();
        all.filter(|value| (self.from..=self.to).contains(value)).collect()
    }

    /// The powers of two on it.
    fn binary_ticks(&self) -> Vec<f64> {
        let all = (0..31).map(|power| 2_f64.powi(power));
        all.filter(|value| (self.from..=self.to).contains(value)).collect()
    }
}

impl Dots {
    /// The columns `headings` of a table, a row each.
    pub fn of(table: &Table, headings: &[&str], title: &str, axis: &str) -> Self {
        let rows = table.columns(headings);
        let values = rows.iter().flat_map(|(_, values)| values.iter().copied());
        Self {
            title: title.to_owned(),
            axis: LogAxis::around(values, axis),
            series: headings.iter().map(|&heading| heading.to_owned()).collect(),
            rows,
        }
    }

    /// Draws from `top` on, and returns where it ends.
    fn draw(&self, out: &mut String, top: f64) -> f64 {
        let right = WIDTH - 2.0 * MARGIN;
        let at = |value: f64| DOTS_LEFT + self.axis.share(value) * (right - DOTS_LEFT);
        let rows_top = top + HEADING_HEIGHT;
        let bottom = rows_top + ROW_HEIGHT * count(self.rows.len());
        text(out, MARGIN, top + 14.0, "title", "start", &self.title);
        let mut legend = MARGIN + 8.0;
        for (index, title) in self.series.iter().enumerate() {
            mark(out, index, legend, top + 36.0);
            text(out, legend + 12.0, top + 40.0, "", "start", title);
            legend += (WIDTH - 2.0 * MARGIN) / count(self.series.len());
        }
        for value in self.axis.decimal_ticks() {
            line(out, "grid", at(value), rows_top, at(value), bottom);
            text(out, at(value), bottom + 18.0, "small", "middle", &grouped(value));
        }
        text(out, f64::midpoint(DOTS_LEFT, right), bottom + 40.0, "", "middle", &self.axis.title);
        for (index, (title, values)) in self.rows.iter().enumerate() {
            let y = rows_top + ROW_HEIGHT * (count(index) + 0.5);
            text(out, DOTS_LEFT - 14.0, y + 4.0, "", "end", title);
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(0.0, f64::max);
            line(out, "link", at(low), y, at(high), y);
            for (index, value) in values.iter().enumerate() {
                mark(out, index, at(*value), y);
            }
            // Beside the outermost dots; one label where all are in one place.
            if at(high) - at(low) > 2.0 * MARK {
                text(out, at(low) - 9.0, y + 4.0, "small", "end", &grouped(low));
            }
            text(out, at(high) + 9.0, y + 4.0, "small", "start", &grouped(high));
        }
        bottom + AXIS_HEIGHT
    }
}

impl Line {
    /// Draws from `top` on, and returns where it ends.
    fn draw(&self, out: &mut String, top: f64) -> f64 {
        let lines_top = top + 32.0;
        let bottom = lines_top + LINES_HEIGHT;
        let x = |value: f64| LINES_LEFT + self.across.share(value) * (LINES_RIGHT - LINES_LEFT);
        let y = |value: f64| bottom - self.up.share(value) * LINES_HEIGHT;
        text(out, MARGIN, top + 14.0, "title", "start", &self.title);
        for value in self.across.binary_ticks() {
            line(out, "grid", x(value), lines_top, x(value), bottom);
            text(out, x(value), bottom + 18.0, "small", "middle", &(self.tick)(value));
        }
        for value in self.up.decimal_ticks() {
            line(out, "grid", LINES_LEFT, y(value), LINES_RIGHT, y(value));
            text(out, LINES_LEFT - 8.0, y(value) + 4.0, "small", "end", &grouped(value));
        }
        text(out, f64::midpoint(LINES_LEFT, LINES_RIGHT), bottom + 40.0, "", "middle", &self.across.title);
        let _ = writeln!(
            out,
            "<text transform=\"translate({:.1} {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            MARGIN,
            f64::midpoint(lines_top, bottom),
            escaped(&self.up.title)
        );
        for (index, series) in self.series.iter().enumerate() {
            let points = series.points.iter().map(|(across, up)| format!("{:.1},{:.1} ", x(*across), y(*up)));
            let _ = writeln!(
                out,
                "<polyline class=\"line c{index}\" points=\"{}\"/>",
                points.collect::<String>().trim()
            );
            for (across, up) in &series.points {
                mark(out, index, x(*across), y(*up));
            }
        }
        // At the lines' ends, from the top one down, none over another.
        let mut ends: Vec<_> = self
            .series
            .iter()
            .enumerate()
            .filter_map(|(index, series)| Some((y(series.points.last()?.1), index)))
            .collect();
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let mut free = f64::MIN;
        for (end, index) in ends {
            let place = end.max(free);
            free = place + 17.0;
            let title = self.series.get(index).map_or("", |series| &series.title);
            text(out, LINES_RIGHT + 14.0, place + 4.0, &format!("c{index}"), "start", title);
        }
        bottom + AXIS_HEIGHT
    }
}

/// A mark for a point of a series, each of another shape.
fn mark(out: &mut String, series: usize, x: f64, y: f64) {
    let class = format!("c{series}");
    let _ = match series % 2 {
        0 => writeln!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{MARK}\"/>"),
        _ => writeln!(
            out,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{}\" height=\"{}\"/>",
            x - MARK + 1.0,
            y - MARK + 1.0,
            2.0 * (MARK - 1.0),
            2.0 * (MARK - 1.0)
        ),
    };
}

fn line(out: &mut String, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
    let _ = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// A number of at least two digits that say something, whole from ten on, with commas between groups of three digits.
fn grouped(value: f64) -> String {
    if value != 0.0 && value < 10.0 && value.fract() != 0.0 {
        return rounded(value, 1);
    }
    let digits = rounded(value, 0);
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many, for arithmetic with lengths.
fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Dots, Figure, Line, LogAxis, Series, grouped, svg};
    use crate::bench::table::{Table, number};

    fn axis(from: f64, to: f64) -> LogAxis {
        LogAxis { from, to, title: "ns".into() }
    }

    #[test]
    fn a_decade_is_as_long_as_the_next() {
        let axis = axis(10.0, 1000.0);
        assert!((axis.share(100.0) - 0.5).abs() < 1e-9);
        assert_eq!(axis.decimal_ticks(), [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        assert_eq!([0.0, 999.4, 1000.0, 1_234_567.0].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn an_axis_has_room_for_all_values() {
        let axis = LogAxis::around([13.0, 890.0, 59.0].into_iter(), "µs");
        assert_eq!((axis.from, axis.to), (10.0, 1000.0));
        let exact = LogAxis::around([0.5, 20.0].into_iter(), "µs");
        assert_eq!((exact.from, exact.to), (0.5, 20.0));
    }

    #[test]
    fn small_numbers_keep_a_digit_after_the_point() {
        assert_eq!([0.5, 2.0, 9.96, 12.4].map(grouped), ["0.5", "2", "10.0", "12"]);
    }

    #[test]
    fn dots_are_the_numbers_of_a_table() {
        let mut table = Table::new(&["case", "ours", "ratio", "theirs"]);
        table.row("one", [number(3.0, 0), number(0.5, 1), number(6.0, 0)]);
        table.row("ours alone", [number(1.0, 0)]);
        let dots = Dots::of(&table, &["ours", "theirs"], "title", "µs");
        assert_eq!(dots.rows, [("one".to_owned(), vec![3.0, 6.0])]);
        assert_eq!((dots.axis.from, dots.axis.to), (2.0, 10.0));
    }

    #[test]
    fn titles_are_escaped() {
        let dots = Dots {
            title: "a < b".into(),
            axis: axis(1.0, 10.0),
            series: vec!["x".into(), "y".into()],
            rows: vec![("row & row".into(), vec![1.0, 10.0])],
        };
        let series = vec![Series { title: "s".into(), points: vec![(1.0, 1.0), (8.0, 8.0)] }];
        let (across, up) = (axis(1.0, 8.0), axis(1.0, 10.0));
        let line = Line { title: "l".into(), across, up, tick: |value| format!("{value} <"), series };
        let svg = svg(&[Figure::Dots(dots), Figure::Line(line)]);
        assert!(svg.contains(">a &lt; b<") && svg.contains(">row &amp; row<") && svg.contains(">8 &lt;<"));
    }
}
