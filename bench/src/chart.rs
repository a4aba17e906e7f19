//! Charts, as SVG and PNG: bars side by side for work, lines for what goes by size.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

use crate::results::{Cell, Results, Table};
use crate::workload::size_label;

const FONT: &str = "DejaVu Sans";
const FONT_FILE: &str = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf";
const SIZE: (u32, u32) = (960, 540);

/// What the metrics of Podman's driver without overlays end with.
const VFS: &str = ", vfs";

/// Who is shown, in which colour, under which name.
const SHOWN: [(&str, &str, RGBColor); 7] = [
    ("ext4", "ext4", RGBColor(150, 150, 150)),
    ("floor", "the floor of FUSE", RGBColor(200, 200, 200)),
    ("ours-file", "Yadokari, embedded store", RGBColor(236, 140, 60)),
    ("ours-rados", "Yadokari on Ceph", RGBColor(205, 80, 30)),
    ("ceph-fuse", "ceph-fuse", RGBColor(70, 110, 170)),
    ("juicefs", "JuiceFS", RGBColor(110, 160, 110)),
    ("tmpfs", "tmpfs", RGBColor(120, 120, 160)),
];

/// With another driver, beside the bars of the same contender.
const WITH_VFS: [(&str, &str, RGBColor); 2] = [
    ("ext4", "vfs on ext4", RGBColor(100, 100, 100)),
    ("ceph-fuse", "vfs on ceph-fuse", RGBColor(70, 110, 170)),
];

/// A group of bars for each workload and metric.
struct Bars {
    file: &'static str,
    title: &'static str,
    metrics: &'static [(&'static str, &'static str)],
    without: &'static [&'static str],
    /// The metrics whose names end with [`VFS`] too.
    with_vfs: bool,
}

impl Bars {
    /// The contender, the end of its metrics' names, its title and its colour.
    fn columns(&self) -> Vec<(&'static str, &'static str, &'static str, RGBColor)> {
        let usual = SHOWN.iter().filter(|(name, ..)| !self.without.contains(name));
        let vfs: &[_] = if self.with_vfs { &WITH_VFS } else { &[] };
        let usual = usual.map(|(name, title, colour)| (*name, "", *title, *colour));
        usual.chain(vfs.iter().map(|(name, title, colour)| (*name, VFS, *title, *colour))).collect()
    }
}

const BARS: [Bars; 2] = [
    Bars {
        file: "real-work",
        title: "Real work in a home (seconds, less is better)",
        metrics: &[
            ("tree", "untar"),
            ("tree", "cp -r"),
            ("tree", "rm -rf"),
            ("tree", "tar, cold"),
            ("git", "git clone"),
            ("large", "write"),
        ],
        without: &["tmpfs", "floor"],
        with_vfs: false,
    },
    Bars {
        file: "containers",
        title: "Rootless podman build (seconds, less is better)",
        metrics: &[("containers", "import"), ("containers", "six-step build")],
        without: &[],
        with_vfs: true,
    },
];

/// Draws everything for which there are results; gives the names of the files.
///
/// # Errors
/// Where the font is missing or a file cannot be written.
pub fn draw(results: &Results, dir: &Path) -> Result<Vec<String>> {
    let font = std::fs::read(FONT_FILE)
        .with_context(|| format!("{FONT_FILE}: install the package fonts-dejavu-core"))?;
    // Lives as long as the process: fonts are registered for ever.
    let font: &'static [u8] = Box::leak(font.into_boxed_slice());
    register_font(FONT, FontStyle::Normal, font).map_err(|_| anyhow!("{FONT_FILE} is no font"))?;
    std::fs::create_dir_all(dir)?;
    let table = results.table();
    let mut files = Vec::new();
    for bars in &BARS {
        if bars.metrics.iter().any(|(w, m)| table.contains_key(&(*w, (*m).to_owned()))) {
            both(dir, bars.file, &mut files, &draw_bars(bars, &table))?;
        }
    }
    for metric in ["write", "random read", "random write"] {
        let lines = lines(&table, metric);
        if lines.iter().any(|(.., points)| points.len() > 1) {
            let file = format!("sizes-{}", metric.replace(' ', "-"));
            let title = format!("{metric} by file size (MB/s, more is better)");
            both(dir, &file, &mut files, &draw_lines(&title, &lines))?;
        }
    }
    Ok(files)
}

/// What charts consist of, in pixels.
enum Shape {
    Box((i32, i32), (i32, i32), RGBColor),
    Line(Vec<(i32, i32)>, RGBColor, u32),
    Text((i32, i32), String, u32, Align),
}

#[derive(Clone, Copy)]
enum Align {
    Left,
    Middle,
    Right,
}

/// Makes `file.svg` and `file.png`.
fn both(dir: &Path, file: &str, files: &mut Vec<String>, shapes: &[Shape]) -> Result<()> {
    let svg = dir.join(format!("{file}.svg"));
    paint(&SVGBackend::new(&svg, SIZE).into_drawing_area(), shapes)?;
    let png = dir.join(format!("{file}.png"));
    paint(&BitMapBackend::new(&png, SIZE).into_drawing_area(), shapes)?;
    files.extend([format!("{file}.svg"), format!("{file}.png")]);
    Ok(())
}

fn paint<B: DrawingBackend>(area: &DrawingArea<B, Shift>, shapes: &[Shape]) -> Result<()> {
    let failed = |error: DrawingAreaErrorKind<_>| anyhow!("drawing: {error:?}");
    area.fill(&WHITE).map_err(failed)?;
    for shape in shapes {
        match shape {
            Shape::Box(from, to, colour) => {
                area.draw(&Rectangle::new([*from, *to], colour.filled())).map_err(failed)?;
            }
            Shape::Line(points, colour, width) => {
                let style = colour.stroke_width(*width);
                area.draw(&PathElement::new(points.clone(), style)).map_err(failed)?;
            }
            Shape::Text(at, text, size, align) => {
                let h = match align {
                    Align::Left => HPos::Left,
                    Align::Middle => HPos::Center,
                    Align::Right => HPos::Right,
                };
                let style = TextStyle::from((FONT, *size).into_font());
                let style = style.pos(Pos::new(h, VPos::Center)).color(&RGBColor(40, 40, 40));
                area.draw(&Text::new(text.clone(), *at, style)).map_err(failed)?;
            }
        }
    }
    area.present().map_err(failed)
}

const LEFT: i32 = 70;
const RIGHT: i32 = 940;
const TOP: i32 = 90;
const BOTTOM: i32 = 480;

fn head(title: &str, names: &[(&str, RGBColor)]) -> Vec<Shape> {
    let mut shapes = vec![Shape::Text((LEFT, 24), title.to_owned(), 20, Align::Left)];
    let (mut x, mut y) = (LEFT, 44);
    for (name, colour) in names {
        let width = 36 + 8 * i32::try_from(name.len()).unwrap_or(0);
        if x + width > RIGHT {
            (x, y) = (LEFT, y + 20);
        }
        shapes.push(Shape::Box((x, y), (x + 12, y + 12), *colour));
        shapes.push(Shape::Text((x + 18, y + 6), (*name).to_owned(), 14, Align::Left));
        x += width;
    }
    shapes.push(Shape::Line(vec![(LEFT, BOTTOM), (RIGHT, BOTTOM)], RGBColor(90, 90, 90), 1));
    shapes
}

/// Bars of a group are scaled by the group's longest: workloads differ by a hundred times.
fn draw_bars(bars: &Bars, table: &Table) -> Vec<Shape> {
    let shown = bars.columns();
    let groups: Vec<(&str, Vec<Option<&Cell>>)> = bars
        .metrics
        .iter()
        .filter_map(|(workload, metric)| {
            let cell = |name: &str, end: &str| {
                table.get(&(*workload, format!("{metric}{end}")))?.get(name)
            };
            let cells: Vec<_> = shown.iter().map(|(name, end, ..)| cell(name, end)).collect();
            cells.iter().any(Option::is_some).then_some((*metric, cells))
        })
        .collect();
    let there = |n: usize| groups.iter().any(|(_, cells)| cells[n].is_some());
    let columns: Vec<usize> = (0..shown.len()).filter(|n| there(*n)).collect();
    let names: Vec<_> = columns.iter().map(|n| (shown[*n].2, shown[*n].3)).collect();
    let mut shapes = head(bars.title, &names);
    let group_width = (RIGHT - LEFT) / i32::try_from(groups.len().max(1)).unwrap_or(1);
    let width = (group_width - 20) / i32::try_from(columns.len().max(1)).unwrap_or(1);
    for (group, (metric, cells)) in (0..).zip(&groups) {
        let most = cells.iter().flatten().map(|cell| cell.median).fold(0.0, f64::max);
        let x = LEFT + 10 + group * group_width;
        let middle = x + (group_width - 20) / 2;
        shapes.push(Shape::Text((middle, BOTTOM + 18), (*metric).to_owned(), 15, Align::Middle));
        for (column, n) in (0..).zip(&columns) {
            let Some(cell) = cells[*n] else { continue };
            let height = (cell.median / most * f64::from(BOTTOM - TOP - 20)) as i32;
            let (left, top) = (x + column * width, BOTTOM - height.max(1));
            shapes.push(Shape::Box((left + 1, top), (left + width - 1, BOTTOM), shown[*n].3));
            let above = if cell.stopped { ">" } else { "" };
            let text = format!("{above}{}", crate::table::number(cell.median));
            shapes.push(Shape::Text((left + width / 2, top - 9), text, 12, Align::Middle));
        }
    }
    let note = "each group to its own scale".to_owned();
    shapes.push(Shape::Text((RIGHT, BOTTOM + 44), note, 12, Align::Right));
    shapes
}

/// A contender's points: bytes and MB/s.
type Points = Vec<(u64, f64)>;

fn lines(table: &Table, metric: &str) -> Vec<(&'static str, RGBColor, Points)> {
    let points = |name: &str| -> Points {
        crate::workload::SIZES
            .iter()
            .filter_map(|bytes| {
                let key = ("sizes", format!("{metric} {}", size_label(*bytes)));
                Some((*bytes, table.get(&key)?.get(name)?.median))
            })
            .collect()
    };
    let all = SHOWN.iter().map(|(name, title, colour)| (*title, *colour, points(name)));
    all.filter(|(.., points)| !points.is_empty()).collect()
}

/// Both axes go by powers of ten.
fn draw_lines(title: &str, lines: &[(&'static str, RGBColor, Points)]) -> Vec<Shape> {
    let names: Vec<_> = lines.iter().map(|(name, colour, _)| (*name, *colour)).collect();
    let mut shapes = head(title, &names);
    let values = || lines.iter().flat_map(|(.., points)| points.iter().map(|(_, v)| v.log10()));
    let (low, high) = (values().fold(9.0, f64::min).floor(), values().fold(0.0, f64::max).ceil());
    let y = |value: f64| {
        let part = (value.log10() - low) / (high - low).max(1.0);
        BOTTOM - (part * f64::from(BOTTOM - TOP)) as i32
    };
    let sizes = crate::workload::SIZES;
    let (first, last) = ((sizes[0] as f64).log10(), (sizes[sizes.len() - 1] as f64).log10());
    let x = |bytes: u64| {
        let part = ((bytes as f64).log10() - first) / (last - first);
        LEFT + 30 + (part * f64::from(RIGHT - LEFT - 60)) as i32
    };
    for power in low as i32..=high as i32 {
        let value = 10f64.powi(power);
        let at = y(value);
        shapes.push(Shape::Line(vec![(LEFT, at), (RIGHT, at)], RGBColor(225, 225, 225), 1));
        shapes.push(Shape::Text((LEFT - 8, at), format!("{value}"), 13, Align::Right));
    }
    for bytes in sizes {
        shapes.push(Shape::Text((x(bytes), BOTTOM + 18), size_label(bytes), 14, Align::Middle));
    }
    for (_, colour, points) in lines {
        let points: Vec<_> = points.iter().map(|(bytes, v)| (x(*bytes), y(*v))).collect();
        for (px, py) in &points {
            shapes.push(Shape::Box((px - 3, py - 3), (px + 3, py + 3), *colour));
        }
        shapes.push(Shape::Line(points, *colour, 2));
    }
    shapes
}
