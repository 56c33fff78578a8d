//! The pages of a task and of a device.

use super::html::{
    IN_FULL, ago, badge, bar, counted, device_path, dots, legend, mark, number, pager, search, session, size,
    task_word, word,
};
use super::login::Viewer;
use super::{PAGE, Selection, can_retry};
use crate::server::{DeviceView, TaskView};
use crate::store::{Action, ActionState, DeviceState, LATER, Rollout, Standing, TaskState, Terms};
use maud::{Markup, html};
use std::collections::BTreeMap;

/// Failures that a task's page names.
const FAILURES: usize = 5;
/// Files that it names.
const FILES: usize = 20;

fn button(viewer: &Viewer, path: &str, text: &str, class: &str, device: Option<&str>) -> Markup {
    html! {
        form method="post" action=(path) {
            (word(viewer))
            @if let Some(device) = device { input type="hidden" name="device" value=(device); }
            button class=(class) { (text) }
        }
    }
}

/// What may be done with a task.
fn controls(view: &TaskView, viewer: &Viewer) -> Markup {
    let to = |change: &str| format!("/tasks/{}/{change}", view.id);
    let failed = ["failed", "cancelled"].iter().any(|state| view.counts.contains_key(*state));
    html! {
        @if viewer.acts() && view.state != TaskState::Cancelled {
            div.controls {
                @if view.sessions.iter().any(|session| session.gathering) {
                    (button(viewer, &to("start"), "Start with those who are there", "main", None))
                }
                @if view.state == TaskState::Paused { (button(viewer, &to("resume"), "Resume", "main", None)) }
                @else { (button(viewer, &to("pause"), "Pause", "", None)) }
                @if failed { (button(viewer, &to("retry"), "Retry where it failed", "", None)) }
                details.confirm {
                    summary { "Cancel…" }
                    p { "Devices that have begun are asked to stop. This cannot be undone." }
                    (button(viewer, &to("cancel"), "Cancel the task", "danger", None))
                }
                @if view.rollback {
                    details.confirm {
                        summary { "Roll back…" }
                        p { "The task ends, and devices that have begun it get the task that undoes it." }
                        (button(viewer, &to("rollback"), "Roll back", "danger", None))
                    }
                }
            }
        }
    }
}

fn fact(name: &str, value: impl AsRef<str>) -> Markup {
    let value = value.as_ref();
    html! { @if !value.is_empty() { div { dt { (name) } dd { (value) } } } }
}

/// A task.
pub(super) fn task(view: &TaskView, viewer: &Viewer, selection: &Selection) -> Markup {
    let task = &view.task;
    let path = format!("/tasks/{}", view.id);
    let actions = view.actions.as_deref().unwrap_or_default();
    let wanted: Vec<&Action> =
        actions.iter().filter(|a| selection.wants(&a.device, a.state.as_str(), None)).collect();
    let (at, pages) = selection.place(wanted.len());
    let shown: Vec<&Action> = wanted.iter().copied().skip(at * PAGE).take(PAGE).collect();
    let failures: Vec<&Action> = actions.iter().filter(|a| a.state == ActionState::Failed).collect();
    html! {
        p.crumb { a href="/" { "Fleet" } " / task " (view.id) }
        section #task data-live {
            h1 { (task.name) " " (badge(task_word(view))) }
            (bar(&view.counts))
            p { (counted(&view.counts)) }
            @if let Some(why) = view.rollout.as_ref().and_then(|rollout| rollout.held.as_ref()) {
                p.held role="status" { "Paused: " (why) "." }
            }
            (controls(view, viewer))
            @if let Some(rollout) = &view.rollout { (groups(rollout, &view.terms)) }
            @if wanted.len() > IN_FULL && !failures.is_empty() {
                h2 { "Why it failed" }
                (table(failures.iter().copied().take(FAILURES), viewer, &path))
                @if failures.len() > FAILURES {
                    p { a href={ (path) "?show=failed" } { "All " (number(failures.len() as u64)) } }
                }
            }
            @for one in view.sessions.iter().rev() { div.card { (session(one)) } }
        }
        section aria-labelledby="devices-title" {
            h2 #devices-title { "Devices" }
            div #counts data-live {
                ul.tiles.small {
                    @for (state, count) in &view.counts {
                        @let (class, mark) = mark(state);
                        @let here = (selection.show == *state).then_some("true");
                        // What has no action yet is in no list.
                        @let link = (state != LATER).then(|| format!("{path}?show={state}"));
                        li { a class={ "tile " (class) } href=[link] aria-current=[here] {
                            b { (number(*count)) } span { i aria-hidden="true" { (mark) } " " (state) }
                        } }
                    }
                }
            }
            (search(&path, "Name", selection))
            div #devices data-live {
                @if wanted.is_empty() { p.empty { "No device matches." } }
                @else if wanted.len() <= IN_FULL { (table(shown.iter().copied(), viewer, &path)) }
                @else {
                    (dots(shown.iter().map(|a| (a.device.as_str(), a.state.as_str()))))
                    (legend(&["finished", "unneeded", "running", "waiting", "confirming", "failed", "cancelled"]))
                }
                (pager(&path, selection, at, pages))
            }
        }
        section.card aria-labelledby="facts-title" {
            h2 #facts-title { "About this task" }
            dl.facts {
                (fact("Kind", task.kind.as_str()))
                (fact("Serial", task.serial.to_string()))
                (fact("Version", &task.version))
                (fact("Handler", task.handler.as_deref().unwrap_or_default()))
                (fact("To", task.at.as_deref().unwrap_or_default()))
                (fact("Window", task.window.map(|window| window.to_string()).unwrap_or_default()))
                (fact("When", task.when.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")))
                (fact("After", task.after.join(", ")))
                (fact("Added", format!("{} by {}", ago(Some(view.created)), view.by)))
                @for object in task.objects.iter().take(FILES) {
                    (fact("File", format!("{}, {}", object.filename, size(object.size))))
                }
                @if task.objects.len() > FILES { (fact("Files", number(task.objects.len() as u64))) }
            }
        }
    }
}

/// The groups that get a task one after the other.
fn groups(rollout: &Rollout, terms: &Terms) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Group" } th scope="col" { "State" } th scope="col" { "Devices" } } }
            tbody {
                @for (at, (name, group)) in terms.names().zip(&rollout.groups).enumerate() {
                    tr {
                        th scope="row" { (at + 1) " " (name) }
                        td { (badge(rollout.state(at))) }
                        td.said {
                            (number(group.done)) " of " (number(group.devices)) " done"
                            @if group.failed > 0 { " · " (number(group.failed)) " failed" }
                        }
                    }
                }
            }
        }
    }
}

/// Devices and what became of the task there.
fn table<'a>(actions: impl Iterator<Item = &'a Action>, viewer: &Viewer, path: &str) -> Markup {
    html! {
        table {
            thead { tr { th scope="col" { "Device" } th scope="col" { "State" } th scope="col" { "What it said" } th scope="col" { "Changed" } } }
            tbody {
                @for action in actions {
                    tr {
                        th scope="row" { a href=(device_path(&action.device)) { (action.device) } }
                        td { (badge(action.state.as_str())) @if action.attempt > 1 { small { " attempt " (action.attempt) } } }
                        td.said { (said(action)) @if viewer.acts() && can_retry(action.state) && action.task_state != TaskState::Cancelled {
                            (button(viewer, &format!("{path}/retry"), "Retry", "quiet", Some(&action.device)))
                        } }
                        td { (ago(Some(action.updated))) }
                    }
                }
            }
        }
    }
}

fn said(action: &Action) -> Markup {
    let progress = action.progress.filter(|(_, of)| *of > 0 && action.state.is_open());
    html! {
        @if let Some((done, of)) = progress {
            progress max=(of) value=(done.min(of)) aria-label="progress" { (done) " of " (of) }
        }
        (action.message)
    }
}

/// A device.
pub(super) fn device(
    view: &DeviceView,
    standing: Option<Standing>,
    stories: &[Vec<String>],
    names: &BTreeMap<i64, &str>,
    viewer: &Viewer,
) -> Markup {
    let path = device_path(&view.id);
    let actions = view.actions.as_deref().unwrap_or_default();
    let state = standing.map_or(view.state.as_str(), Standing::as_str);
    html! {
        p.crumb { a href="/" { "Fleet" } " / device" }
        section #device data-live {
            h1 { (view.id) " " (badge(state)) }
            @if viewer.acts() && view.state != DeviceState::Accepted {
                div.controls {
                    (button(viewer, &format!("{path}/accept"), "Accept", "main", None))
                    @if view.state == DeviceState::Pending { (button(viewer, &format!("{path}/refuse"), "Refuse", "", None)) }
                }
            }
            dl.facts.card {
                (fact("Heard", ago(view.last_seen)))
                (fact("From", view.last_address.as_deref().unwrap_or_default()))
                (fact("Known", ago(Some(view.created))))
                (fact("Tags", view.tags.iter().cloned().collect::<Vec<_>>().join(", ")))
                (fact("Key", view.key.as_deref().unwrap_or_default()))
                @for (name, value) in &view.attributes { (fact(name, value)) }
            }
        }
        section #story data-live aria-labelledby="story-title" {
            h2 #story-title { "Tasks" }
            @if actions.is_empty() { p.empty { "This device had no task yet." } }
            @for (i, action) in actions.iter().enumerate() {
                @let name = names.get(&action.task).map_or_else(|| action.task.to_string(), ToString::to_string);
                article.card {
                    h3 { a href={ "/tasks/" (action.task) } { (name) } " " (badge(action.state.as_str())) }
                    p { (said(action)) }
                    p { small {
                        "Changed " (ago(Some(action.updated)))
                        @if action.attempt > 1 { " · attempt " (action.attempt) }
                        @if let Some(code) = action.code { " · code " (code) }
                    } }
                    @if viewer.acts() && can_retry(action.state) && action.task_state != TaskState::Cancelled {
                        (button(viewer, &format!("/tasks/{}/retry", action.task), "Retry here", "", Some(&view.id)))
                    }
                    @if let Some(story) = stories.get(i).filter(|story| !story.is_empty()) {
                        details id={ "story-" (action.id) } {
                            summary { "What it said, newest first" }
                            ol reversed { @for line in story { li { (line) } } }
                        }
                    }
                }
            }
        }
    }
}
