//! Programs that must compile without a warning. Each is a module of this binary.

#[path = "compile_pass/corrected_cases.rs"]
mod corrected_cases;
#[path = "compile_pass/inner_attributes.rs"]
mod inner_attributes;
#[path = "compile_pass/same_position.rs"]
mod same_position;
#[path = "compile_pass/unusual_names.rs"]
mod unusual_names;

#[test]
fn inner_attributes_and_nested_setup_compile() {
    inner_attributes::main();
}

#[test]
fn corrected_compile_fail_cases_compile() {
    corrected_cases::main();
}

#[test]
fn names_of_users_do_not_clash_with_expansions() {
    unusual_names::main();
}

#[test]
fn services_that_look_alike_are_no_cycle() {
    same_position::main();
}
