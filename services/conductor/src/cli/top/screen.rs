//! A view on a terminal, and what keys do to it.

use std::sync::Arc;

use ratatui::Frame;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Text};

use super::text::{self, Sheet};
use super::view::View;

/// Above the rows of a table: a blank line, its name, its titles.
const ABOVE_ROWS: u16 = 3;

/// What is on the screen.
#[derive(Debug)]
pub(crate) struct Screen {
    view: Arc<View>,
    /// The table that arrows scroll.
    chosen: usize,
    /// The first row shown of each table.
    first: [usize; 3],
    is_paused: bool,
}

/// What a key asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Go on.
    Stay,
    /// End.
    Quit,
}

impl Screen {
    /// Begins with a view.
    pub(crate) fn new(view: Arc<View>) -> Self {
        Self {
            view,
            chosen: 0,
            first: [0; 3],
            is_paused: false,
        }
    }

    /// Shows a newer view, unless it is paused.
    pub(crate) fn show(&mut self, view: Arc<View>) {
        if !self.is_paused {
            self.view = view;
        }
    }

    /// Somebody did something at the terminal.
    pub(crate) fn take(&mut self, event: &Event) -> Wish {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.press(*key),
            _ => Wish::Stay,
        }
    }

    fn press(&mut self, key: KeyEvent) -> Wish {
        let is_ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if is_ctrl => return Wish::Quit,
            KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
            KeyCode::Char('p') => self.is_paused = !self.is_paused,
            KeyCode::Tab => self.chosen = (self.chosen + 1) % self.first.len(),
            KeyCode::BackTab => {
                self.chosen = (self.chosen + self.first.len() - 1) % self.first.len();
            }
            KeyCode::Up => self.scroll(|first| first.saturating_sub(1)),
            KeyCode::Down => self.scroll(|first| first + 1),
            KeyCode::PageUp => self.scroll(|first| first.saturating_sub(10)),
            KeyCode::PageDown => self.scroll(|first| first + 10),
            KeyCode::Home => self.scroll(|_| 0),
            KeyCode::End => self.scroll(|_| usize::MAX),
            _ => {}
        }
        Wish::Stay
    }

    /// How far is too far shows when it is drawn.
    fn scroll(&mut self, to: impl FnOnce(usize) -> usize) {
        if let Some(first) = self.first.get_mut(self.chosen) {
            *first = to(*first);
        }
    }

    /// Draws all of it.
    pub(crate) fn draw(&mut self, frame: &mut Frame<'_>) {
        let area = frame.area();
        let mut lines: Vec<Line<'_>> = text::head(&self.view).into_iter().map(Line::from).collect();
        if let Some(first) = lines.first_mut() {
            *first = std::mem::take(first).style(bold());
        }
        let sheets = text::sheets(&self.view);
        let wanted = sheets.each_ref().map(wanted);
        let room = area.height.saturating_sub(lines.len() as u16 + 1);
        let heights = share(room, wanted);
        for (number, (sheet, height)) in sheets.iter().zip(heights).enumerate() {
            let first = self.first.get_mut(number);
            let is_chosen = self.chosen == number;
            lines.extend(table(sheet, height, is_chosen, first));
        }
        frame.render_widget(Text::from(lines), area);
        let bottom = Rect {
            y: area.bottom().saturating_sub(1),
            height: area.height.min(1),
            ..area
        };
        frame.render_widget(self.keys(), bottom);
    }

    fn keys(&self) -> Line<'static> {
        let keys = "q quit   p pause   Tab next table   ↑↓ scroll";
        if self.is_paused {
            Line::from(format!("PAUSED (p goes on)   {keys}")).style(reversed())
        } else {
            Line::from(keys).style(Style::new().add_modifier(Modifier::DIM))
        }
    }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// Lines that show all of a table.
fn wanted(sheet: &Sheet) -> u16 {
    u16::try_from(sheet.rows.len())
        .unwrap_or(u16::MAX)
        .saturating_add(ABOVE_ROWS)
}

/// Divides lines among tables: those that want little get it, the others share what is left.
fn share(room: u16, wanted: [u16; 3]) -> [u16; 3] {
    let mut heights = [0; 3];
    let mut smallest_first: Vec<(u16, &mut u16)> = wanted.into_iter().zip(&mut heights).collect();
    smallest_first.sort_by_key(|(wants, _)| *wants);
    let (mut left, mut sharers) = (room, 3);
    for (wants, height) in smallest_first {
        *height = wants.min(left / sharers);
        left -= *height;
        sharers -= 1;
    }
    heights
}

/// A table in so many lines; corrects a first row that is too far down.
fn table<'s>(
    sheet: &'s Sheet,
    height: u16,
    is_chosen: bool,
    first: Option<&mut usize>,
) -> Vec<Line<'s>> {
    let rows = usize::from(height.saturating_sub(ABOVE_ROWS));
    let all = sheet.rows.len();
    let mut from = 0;
    if let Some(first) = first {
        *first = (*first).min(all.saturating_sub(rows));
        from = *first;
    }
    let shown = sheet.rows.iter().skip(from).take(rows);
    let mark = if is_chosen { "▸ " } else { "  " };
    let name = match all {
        0 => format!("{mark}{}: none", sheet.name),
        _ if all <= rows => format!("{mark}{}", sheet.name),
        _ => format!(
            "{mark}{} {}-{} of {all}",
            sheet.name,
            from + 1,
            from + shown.len()
        ),
    };
    let mut lines = vec![Line::default(), Line::from(name).style(bold())];
    if all > 0 {
        lines.push(Line::from(sheet.titles.as_str()).style(reversed()));
    }
    lines.extend(shown.map(|row| Line::from(row.as_str())));
    lines.truncate(height.into());
    lines
}

#[cfg(test)]
mod tests;
