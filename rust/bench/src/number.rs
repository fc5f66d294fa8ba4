// SPDX-License-Identifier: GPL-2.0

//! Numbers to be read by people.

/// A number in groups of three digits, and a fraction only where it matters.
pub fn thousands(value: f64) -> String {
    let digits = if value.abs() < 10.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    } else {
        format!("{:.0}", value.abs())
    };
    let mut text = if value <= -0.5 { "-".to_owned() } else { String::new() };
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let texts = [0.0, 7.25, 42.4, 999.6, 1234.0, -65536.0, 1e6].map(thousands);
        assert_eq!(texts, ["0", "7.25", "42", "1,000", "1,234", "-65,536", "1,000,000"]);
    }
}
