//! Bar charts as SVG: one below the other, each with a scale of its own. Pure.

use std::fmt::Write as _;

/// Sizes, in pixels.
const WIDTH: u32 = 640;
const NAMES_WIDTH: u32 = 190;
const VALUES_WIDTH: u32 = 110;
const BAR_HEIGHT: u32 = 18;
const ROW_HEIGHT: u32 = 26;
const TITLE_HEIGHT: u32 = 40;

pub struct Chart {
    pub title: String,
    pub unit: &'static str,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub name: String,
    pub value: f64,
}

/// All charts that have bars, as one picture.
pub fn svg(charts: &[Chart]) -> String {
    let mut body = String::new();
    let mut y = 0;
    for chart in charts.iter().filter(|chart| !chart.bars.is_empty()) {
        let title = escaped(&chart.title);
        let at = y + TITLE_HEIGHT - 14;
        // Writing to a string cannot fail.
        let _ = writeln!(
            body,
            r#"<text x="8" y="{at}" font-weight="bold">{title} ({})</text>"#,
            chart.unit
        );
        y += TITLE_HEIGHT;
        let most = chart.bars.iter().map(|bar| bar.value).fold(0.0, f64::max);
        for bar in &chart.bars {
            row(&mut body, bar, y, most);
            y += ROW_HEIGHT;
        }
    }
    let height = y + 12;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn row(body: &mut String, bar: &Bar, y: u32, most: f64) {
    let room = f64::from(WIDTH - NAMES_WIDTH - VALUES_WIDTH);
    let share = if most > 0.0 { bar.value / most } else { 0.0 };
    // One pixel shows that there is something.
    let width = (room * share).max(1.0);
    let name = escaped(&bar.name);
    let (right, text) = (NAMES_WIDTH - 8, y + 14);
    let after = f64::from(NAMES_WIDTH) + width + 6.0;
    let value = if bar.value >= 100.0 {
        format!("{:.0}", bar.value)
    } else {
        format!("{:.2}", bar.value)
    };
    let _ = writeln!(
        body,
        r##"<text x="{right}" y="{text}" text-anchor="end">{name}</text><rect x="{NAMES_WIDTH}" y="{y}" width="{width:.1}" height="{BAR_HEIGHT}" fill="#3b6ea5"/><text x="{after:.1}" y="{text}">{value}</text>"##
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_bar_fills_the_room_and_the_others_their_share() {
        let bar = |name: &str, value| Bar {
            name: name.into(),
            value,
        };
        let chart = Chart {
            title: "a < b".into(),
            unit: "ms",
            bars: vec![bar("x", 50.0), bar("y", 200.0)],
        };
        let empty = Chart {
            title: "nothing".into(),
            unit: "ms",
            bars: Vec::new(),
        };
        let picture = svg(&[chart, empty]);
        assert!(picture.contains("a &lt; b (ms)"), "{picture}");
        assert!(picture.contains(r#"width="340.0""#), "{picture}");
        assert!(picture.contains(r#"width="85.0""#), "{picture}");
        assert!(!picture.contains("nothing"), "{picture}");
        assert!(picture.ends_with("</svg>\n"));
    }
}
