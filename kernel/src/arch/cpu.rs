//! Stopping.

/// Powers the domain off through PSCI. Returns only if the firmware refuses.
pub fn power_off() {
    let _ = smccc::psci::system_off::<smccc::Hvc>();
}
