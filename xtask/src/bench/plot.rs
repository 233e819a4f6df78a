//! Ratios as bars.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::statistics::Summary;

/// A plot: bars from 0, and a line at 1.
#[derive(Debug)]
pub(super) struct Bars<'a> {
    /// What it shows, and what 1 is.
    pub(super) title: &'a str,
    /// From top to bottom.
    pub(super) rows: Vec<Row>,
}

/// A name, and a bar or two.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    /// Whether it is ours, and therefore stands out.
    pub(super) ours: bool,
    /// From top to bottom, each a ratio with its interval.
    pub(super) bars: Vec<Summary>,
}

const WIDTH: u32 = 860;
/// Pixels of a row, and of all that is above and below the rows.
const ROW: u32 = 40;
const AROUND: u32 = 80;
/// Room for the names.
const NAMES: i32 = 265;
const OURS: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa5, 0xb1);
/// Black and white that stay so on a dark page, because they stand on a bar. [`STYLE`] changes the true ones.
const ON_OTHERS: RGBColor = RGBColor(1, 1, 1);
const ON_OURS: RGBColor = RGBColor(254, 254, 254);
/// What a bar and the room around it take of a row.
const BAR: f64 = 0.34;

/// For those who read on black.
const STYLE: &str = "<style>@media (prefers-color-scheme: dark) { [fill=\"#FFFFFF\"] { fill: #16191d } \
                     [fill=\"#000000\"] { fill: #e3e6ea } [stroke=\"#000000\"] { stroke: #e3e6ea } }</style>";

impl Bars<'_> {
    /// The plot as SVG, which follows the reader's choice of light or dark.
    pub(super) fn svg(&self) -> Result<String> {
        let mut text = String::new();
        self.draw(&mut text).map_err(|error| anyhow!("draw {:?}: {error}", self.title))?;
        let (head, rest) = text.split_once('\n').unwrap_or((&text, ""));
        // As text files end.
        Ok(format!("{head}\n{STYLE}\n{}\n", rest.trim_end()))
    }

    fn draw(&self, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let rows = u32::try_from(self.rows.len())?;
        let all = self.rows.iter().flat_map(|row| &row.bars);
        let longest = all.map(|ratio| ratio.interval.map_or(ratio.median, |[_, high]| high)).fold(1.0, f64::max);
        let area = SVGBackend::with_string(text, (WIDTH, rows * ROW + AROUND)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(30)
            .y_label_area_size(NAMES)
            .build_cartesian_2d(0.0..longest * 1.08, 0.0..f64::from(rows))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .max_light_lines(0)
            .label_style(("sans-serif", 13))
            .x_label_formatter(&|at| format!("{at:.1}"))
            .draw()?;
        for (row, bottom) in self.rows.iter().rev().zip(0_u32..) {
            let middle = f64::from(bottom) + 0.49;
            let name = Text::new(row.name.clone(), (8 - NAMES, -5), ("sans-serif", 14));
            chart.draw_series([EmptyElement::at((0.0, middle)) + name])?;
            let height = BAR * f64::from(u32::try_from(row.bars.len())?);
            for (ratio, number) in row.bars.iter().zip(1_u32..) {
                let at = middle + height / 2.0 - BAR * f64::from(number);
                let colour = if row.ours { OURS } else { OTHERS };
                let colour = if number == 1 { colour.filled() } else { colour.mix(0.65).filled() };
                chart.draw_series([Rectangle::new([(0.0, at), (ratio.median, at + BAR)], colour)])?;
                let line = at + BAR / 2.0;
                let interval = ratio.interval.unwrap_or([ratio.median; 2]);
                chart.draw_series([PathElement::new(interval.map(|at| (at, line)), BLACK)])?;
                let font = ("sans-serif", 12).into_font().color(if row.ours { &ON_OURS } else { &ON_OTHERS });
                let label = Text::new(format!("{:.2}", ratio.median), (4, -6), font);
                chart.draw_series([EmptyElement::at((0.0, line)) + label])?;
            }
        }
        chart.draw_series([PathElement::new([(1.0, 0.0), (1.0, f64::from(rows))], BLACK.mix(0.5))])?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_ratio_and_says_it() {
        let row = |name: &str, value| Row { name: name.to_owned(), ours: false, bars: vec![Summary::of(&[value])] };
        let svg = Bars { title: "lengths", rows: vec![row("one", 1.0), row("half", 0.5)] }.svg().unwrap();
        let widths: Vec<f64> = svg
            .lines()
            .filter(|line| line.starts_with("<rect") && line.contains("#9AA5B1"))
            .filter_map(|line| line.split("width=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        let [half, one] = widths[..] else { panic!("two bars expected: {svg}") };
        assert!((one / half - 2.0).abs() < 0.01, "{widths:?}");
        assert!(svg.contains("\n1.00\n") && svg.contains("\n0.50\n"), "{svg}");
    }
}
